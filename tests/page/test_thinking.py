"""The view "how it thinks": tokens and what else came close, experts, the exact prompt, and errors."""

import pytest
from playwright.sync_api import expect

from tests.page.chatting import answer, ask, choose

QUESTION = "Use 3, 5, 7 to make 22."


@pytest.fixture
def shown(open_page):
    """Opens the view of an answer to the question: (page, the answer's text)."""

    def show(model="mini", **fields):
        page = open_page(**fields)
        choose(page, model)
        ask(page, QUESTION)
        link = answer(page).get_by_role("link", name="How it thinks")
        expect(answer(page).locator(".figures")).to_be_visible()
        text = answer(page).locator(".markdown").inner_text()
        link.click()
        return page, text

    return show


@pytest.mark.parametrize("size", ["phone", "desk"])
def test_each_token_shows_what_else_came_close(shown, size):
    page, text = shown(size=size)
    tokens = page.get_by_role("listbox").get_by_role("option")
    tokens.first.wait_for()
    assert text.strip() in "".join(tokens.all_inner_texts())
    place = page.get_by_role("complementary", name="This place")
    tokens.nth(1).focus()
    place.get_by_text("Token 2 of").wait_for()
    assert place.get_by_role("listitem").count() == 5
    assert "%" in place.inner_text()
    page.keyboard.press("ArrowRight")
    place.get_by_text("Token 3 of").wait_for()
    page.keyboard.press("Home")
    place.get_by_text("Token 1 of").wait_for()
    page.get_by_text("The exact prompt").click()
    exact = page.locator(".exact")
    expect(exact.locator(".special").first).to_be_visible()
    assert QUESTION.replace(" ", "·") in exact.inner_text().replace("\n", "")


def test_experts_or_their_absence_are_shown(shown):
    page, _ = shown()
    page.get_by_role("heading", name="Experts").wait_for()
    assert page.locator("canvas").count() or page.get_by_text("has no experts").count()
    page.get_by_role("link", name="Back to the chat").click()
    expect(answer(page)).to_be_visible()


def test_energy_of_the_answer_is_shown(shown):
    page, _ = shown()
    entry = page.locator(".counters div").filter(has_text="Energy")
    entry.wait_for()
    value, unit = entry.locator("dd").inner_text().split()
    assert float(value) > 0
    assert unit in ("J", "kJ")


def test_what_cannot_be_seen_is_a_sentence(shown):
    page, _ = shown("echo", allowed=("400",))
    page.get_by_role("alert").get_by_text("runs on another server").wait_for()
    page.goto(page.url.partition("#")[0] + "#/thinking/none/none")
    page.reload()
    page.get_by_role("alert").get_by_text("no such answer").wait_for()
