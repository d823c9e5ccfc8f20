"""The account's page: the way in and out, codes, keys, sessions, usage, data and deletion."""

import json

import pyotp
import pytest

from tests.page.people import ADMIN, PASSWORD, Person, make_person, sign_in


@pytest.fixture
def shown(open_page, paid):
    """Opens the account's page of somebody new: (page, person)."""

    def show(email, *, money="", num_requests=0, **fields):
        person = make_person(paid, email, money)
        for _ in range(num_requests):
            person.ask()
        page = open_page("#/sign-in", of=paid, **fields)
        sign_in(page, paid, email, "#/account")
        page.get_by_role("heading", name="Sessions").wait_for()
        return page, person

    return show


def part(page, name):
    return page.get_by_role("region", name=name, exact=True)


def test_without_accounts_the_page_says_so_and_how_to_turn_them_on(open_page):
    page = open_page("#/account")
    page.get_by_text("nobody signs in").wait_for()
    assert "shoestring serve --host 0.0.0.0" in page.locator("pre").inner_text()
    page.get_by_label("Language").last.select_option("de")
    page.get_by_text("Niemand meldet sich an").wait_for()
    part(page, "Sprache und Aussehen").get_by_label("Aussehen").select_option("dark")
    assert page.locator("html").get_attribute("data-theme") == "dark"


def test_registration_says_its_state_and_what_to_do(open_page, paid):
    admin = Person(paid, ADMIN)

    def hold(state):
        admin.call("POST", "/admin/gate", {"state": state, "reason": "a test"})

    page = open_page("#/sign-up", of=paid)
    page.get_by_text("Registration is open").wait_for()
    try:
        for state, sentence in (("invite", "needs an invitation"), ("closed", "closed for now")):
            hold(state)
            page.reload()
            page.get_by_text(sentence).wait_for()
            page.get_by_text("The reason: a test.").wait_for()
            assert page.get_by_label("Password").count() == 0
        hold("proof_of_work")
        page.reload()
        page.get_by_text("your browser then computes").wait_for()
        page.get_by_label("E-mail").fill("slow@example.org")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Make an account").click()
        page.get_by_text("Your account is ready").wait_for()
    finally:
        hold("open")
    link = admin.call("POST", "/admin/links", {"purpose": "invite"})["link"]
    page.goto(link)
    page.get_by_text("You are invited").wait_for()
    page.get_by_label("E-mail").fill("guest@example.org")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Make an account").click()
    page.get_by_text("Your account is ready").wait_for()
    page.get_by_role("link", name="I forgot my password").click()
    page.get_by_label("E-mail").fill("guest@example.org")
    page.get_by_role("button", name="Send me a link").click()
    page.get_by_text("ask the operator for a link").wait_for()


def test_a_key_is_shown_once_with_programs_that_use_it(shown, paid):
    page, _ = shown("keys@example.org", money="1")
    keys = part(page, "API keys")
    keys.get_by_text("No keys yet").wait_for()
    keys.get_by_label("Its name").fill("laptop")
    keys.get_by_label("It ends").select_option("in 30 days")
    keys.get_by_text("Limits", exact=True).click()
    keys.get_by_label("USD a day, at most").fill("1.5")
    keys.get_by_role("button", name="Make a key").click()
    keys.get_by_text("it is not shown again").wait_for()
    key = keys.locator("pre").first.inner_text()
    assert key.startswith("ss-")
    keys.get_by_role("button", name="openai-python").click()
    program = keys.locator("pre").last.inner_text()
    assert f'api_key="{key}"' in program
    assert 'model="mini"' in program
    models = f"{paid.url}/v1/models"
    headers = {"Authorization": f"Bearer {key}"}
    assert page.request.get(models, headers=headers).ok
    assert "$1.50 a day" in keys.get_by_role("listitem").inner_text()
    page.reload()
    keys.get_by_text("laptop").wait_for()
    assert key not in page.content()
    keys.get_by_role("button", name="Revoke laptop").click()
    keys.get_by_text("laptop does not work any more").wait_for()
    assert page.request.get(models, headers=headers).status == 401


def test_codes_are_set_up_by_a_qr_code_and_turned_off(shown, open_page, paid):
    page, _ = shown("codes@example.org", size="phone")
    codes = part(page, "Codes at sign-in")
    codes.get_by_role("button", name="Set up").click()
    codes.get_by_label("Your password now").fill(PASSWORD)
    codes.get_by_role("button", name="Set up").last.click()
    assert codes.get_by_role("img", name="QR code").bounding_box()["width"] >= 200
    secret = codes.locator("code").inner_text().replace(" ", "")
    codes.get_by_label("The code that the app shows").fill(pyotp.TOTP(secret).now())
    codes.get_by_role("button", name="Turn on").click()
    recovery = codes.locator("pre").inner_text().split()
    assert len(recovery) == 10
    with page.expect_download() as saved:
        codes.get_by_role("button", name="Save as a file").click()
    assert saved.value.path().read_text().split() == recovery
    codes.get_by_role("button", name="I have kept them").click()
    other = open_page("#/sign-in", of=paid, allowed=("401",))
    other.get_by_label("E-mail").fill("codes@example.org")
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_role("button", name="Sign in").click()
    other.get_by_label("recovery code").fill(recovery[0])
    other.get_by_role("button", name="Sign in").click()
    other.get_by_role("navigation").wait_for()
    codes.get_by_role("button", name="Turn off").click()
    codes.get_by_label("Your password now").fill(PASSWORD)
    codes.get_by_label("recovery code").fill(recovery[1])
    codes.get_by_role("button", name="Turn off").last.click()
    codes.get_by_text("No code is asked any more").wait_for()


def test_sessions_are_listed_and_others_end(shown):
    page, _ = shown("sessions@example.org")
    sessions = part(page, "Sessions")
    sessions.get_by_text("Another browser").wait_for()  # the program by which the account was made
    sessions.get_by_role("button", name="End", exact=True).click()
    sessions.get_by_text("The session has ended").wait_for()
    assert sessions.get_by_text("Another browser").count() == 0
    sessions.get_by_text("This browser").wait_for()
    assert sessions.get_by_role("button").count() == 0


def test_the_address_and_the_password_change(shown):
    page, _ = shown("old@example.org", allowed=("Clear-Site-Data",))
    way = part(page, "Sign-in")
    way.get_by_role("button", name="Change the e-mail").click()
    way.get_by_label("New e-mail").fill("new@example.org")
    way.get_by_label("Your password now").fill(PASSWORD)
    way.get_by_role("button", name="Save").click()
    way.get_by_text("new@example.org is your address now").wait_for()
    way.get_by_role("button", name="Change the password").click()
    way.get_by_label("New password").fill("another long one")
    way.get_by_label("Your password now").fill(PASSWORD)
    way.get_by_role("button", name="Save").click()
    way.get_by_text("Your password is changed").wait_for()
    way.get_by_role("button", name="Sign out").click()
    page.get_by_label("E-mail").fill("new@example.org")
    page.get_by_label("Password").fill("another long one")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation").wait_for()


def test_usage_has_a_chart_a_table_and_a_file(shown):
    page, person = shown("usage@example.org", money="1", num_requests=2)
    usage = part(page, "Usage")
    usage.get_by_text("2 requests").wait_for()
    day = usage.locator("svg g").last
    day.hover()
    usage.get_by_text("mini $0.0").wait_for()
    usage.get_by_role("button", name="Tokens").click()
    usage.get_by_role("button", name="7 days").click()
    assert usage.locator("svg g").count() == 7
    usage.get_by_text("As a table").click()
    cells = usage.get_by_role("row").last.get_by_role("cell").all_inner_texts()
    data = person.call("GET", "/v1/usage?group_by=model")["data"][0]
    assert cells[1:3] == ["mini", "2"]
    assert cells[5] == str(data["completion_tokens"])
    with page.expect_download() as saved:
        usage.get_by_role("link", name="Save as CSV").click()
    assert saved.value.path().read_text().splitlines()[0].startswith("day,model,requests")
    balance = part(page, "Balance").inner_text()
    assert "$0.99" in balance


def test_an_account_takes_its_data_and_is_deleted(shown, paid):
    page, person = shown("leaving@example.org")
    data = part(page, "Your data")
    with page.expect_download() as saved:
        data.get_by_role("button", name="Save my data").click()
    assert json.loads(saved.value.path().read_text())["accounts"][0]["id"] == person.id
    data.get_by_role("button", name="Delete the account").click()
    data.get_by_label("Your password now").fill(PASSWORD)
    assert data.get_by_role("button", name="Delete for good").is_disabled()
    data.get_by_label("Type leaving@example.org").fill("leaving@example.org")
    data.get_by_role("button", name="Delete for good").click()
    page.get_by_role("heading", name="Sign in").wait_for()
    body = {"email": "leaving@example.org", "password": PASSWORD}
    assert page.request.post(f"{paid.url}/auth/sign-in", data=body).status == 401
