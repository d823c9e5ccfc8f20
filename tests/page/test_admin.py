"""The admins' pages: people and their money, invitations, registration, incidents, load, prices, the log."""

import pytest

from tests.page.people import ADMIN, PASSWORD, make_person, sign_in


@pytest.fixture
def admin(open_page, paid):
    """Opens a page for admins."""

    def show(section, **fields):
        page = open_page("#/sign-in", of=paid, **fields)
        sign_in(page, paid, ADMIN, f"#/admin/{section}")
        page.get_by_role("heading", name="Operation").wait_for()
        return page

    return show


def test_people_are_found_given_money_limited_and_disabled(admin, paid):
    eve = make_person(paid, "eve@example.org")
    page = admin("users")
    page.get_by_label("Find by e-mail or id").fill("nobody at all")
    page.get_by_text("Nobody is found").wait_for()
    page.get_by_label("Find by e-mail or id").fill("EVE@")
    page.get_by_role("button", name="eve@example.org").click()
    page.get_by_label("Amount in USD").fill("2.5")
    page.get_by_label("Note").fill("a prize")
    page.get_by_role("button", name="Give").click()
    page.get_by_text("$2.50 was given").wait_for()
    assert "$2.50" in page.get_by_role("button", name="eve@example.org").inner_text()
    page.get_by_text("Limits and priority").click()
    page.get_by_label("Priority").select_option("batch")
    page.get_by_label("USD a day").fill("1.5")
    page.get_by_label("Requests a minute").fill("30")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Saved.").wait_for()
    terms = eve.call("GET", "/user/terms")
    assert (terms["day_cap"], terms["requests_per_minute"]) == ("1.50", 30)
    page.get_by_role("button", name="Disable").click()
    page.keyboard.press("Escape")
    assert page.get_by_role("button", name="Cancel").count() == 0
    page.get_by_role("button", name="Disable").click()
    page.get_by_role("button", name="Disable").click()
    page.get_by_text("The account is disabled").wait_for()
    with pytest.raises(AssertionError, match=r"API key|disabled"):
        eve.call("GET", "/account")
    page.get_by_role("button", name="Enable").click()
    page.get_by_text("The account works again").wait_for()


def test_somebody_gets_an_account_by_a_link(admin, open_page, paid):
    page = admin("users", size="phone")
    page.get_by_text("Make an account for somebody").click()
    page.get_by_label("E-mail", exact=True).fill("new@example.net")
    page.get_by_role("button", name="Make the account").click()
    link = page.locator("pre").inner_text()
    other = open_page("#/sign-in", of=paid, allowed=("status of 403",))  # the admins' pages are not theirs
    other.goto(link)
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Save").click()
    other.get_by_text("Your password is set").wait_for()
    sign_in(other, paid, "new@example.net", "#/admin")
    assert other.get_by_role("link", name="Operation").count() == 0


def test_an_invitation_is_made_and_taken_back(admin):
    page = admin("invitations")
    page.get_by_role("button", name="Make an invitation").click()
    assert "/#/link/invite/" in page.locator("pre").inner_text()
    page.get_by_role("button", name="Take back").first.click()
    page.get_by_role("button", name="Take back").first.click()
    page.get_by_text("The link does not work any more").wait_for()


def test_registration_is_held_and_let_go(admin):
    page = admin("gate")
    page.get_by_label("Hold this state").select_option("invite")
    page.get_by_label("Reason, shown to everyone").fill("few machines")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("because: few machines. It is held").wait_for()
    page.get_by_label("Hold this state").select_option("open")
    page.get_by_label("Reason, shown to everyone").fill("more machines")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("by invitation → open").first.wait_for()


def test_an_incident_is_told_on_the_status_page(admin, paid):
    page = admin("incidents")
    page.get_by_label("What has happened?").fill("Slow <b>since</b> noon")
    page.get_by_role("button", name="Begin an incident").click()
    incident = page.get_by_role("article").first
    incident.get_by_text("it lasts").wait_for()
    incident.get_by_label("A further note").fill("It was a disk")
    incident.get_by_role("button", name="Add the note").click()
    incident.get_by_text("It was a disk").wait_for()
    incident.get_by_label("A further note").fill("It has a new one")
    incident.get_by_role("button", name="End it with this note").click()
    incident.get_by_text("over").wait_for()
    page.wait_for_timeout(3100)  # the public list is read anew every three seconds
    status = page.request.get(f"{paid.url}/status", headers={"Accept": "text/html"}).text()
    assert "Slow &lt;b&gt;since" in status
    assert "It has a new one" in status


def test_load_prices_and_the_ledger_are_shown(admin, paid):
    make_person(paid, "load@example.org", "1").ask()
    page = admin("models")
    page.get_by_role("article", name="mini").get_by_text("works").wait_for()
    page.get_by_role("link", name="Money").click()
    page.get_by_text("deepseek-2025-01").wait_for()
    page.get_by_role("button", name="Read it anew").click()
    page.get_by_text("The list was read").wait_for()
    page.get_by_role("button", name="Check the ledger").click()
    page.get_by_text("Everything adds up").wait_for()
    assert page.locator("svg g").count() == 30


def test_the_log_says_who_did_what(admin, paid):
    person = make_person(paid, "logged@example.org", "3")
    page = admin("log", scheme="dark")
    row = page.get_by_role("listitem").filter(has_text="logged@example.org").first
    assert "Gave money: logged@example.org grant 3.00" in " ".join(row.inner_text().split())
    assert ADMIN in row.inner_text()
    assert person.id not in row.inner_text()
