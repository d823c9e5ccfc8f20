"""Answers go on without a reader: reloads, lost connections, tabs and kills lose and double nothing."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.page.chatting import answer, ask, choose, finished
from tests.page.running import Running

LONG = " ".join(f"word{number}" for number in range(60))


@pytest.fixture
def own(tmp_path, echo) -> Iterator[Running]:
    """A service that this test may kill."""
    running = Running(tmp_path, "mini", "--upstream", echo.url)
    running.start()
    yield running
    running.stop()


@pytest.mark.parametrize("place", ["server", "browser"])
def test_a_reload_finds_the_answer_under_way(open_page, echo, place):
    echo.pause_s = 0.1
    page = open_page()
    page.evaluate(f"localStorage.setItem('place', '{place}')")
    page.reload()
    choose(page, "echo")
    ask(page, LONG)
    expect(answer(page)).to_contain_text("word5")
    page.reload()
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    echo.pause_s = 0.0
    finished(page, LONG)
    expect(page.locator("article")).to_have_count(2)
    assert len(echo.asked) == 1


def test_a_lost_connection_is_taken_up_again(open_page, echo):
    echo.pause_s = 0.1
    page = open_page(allowed=("ERR_INTERNET_DISCONNECTED", "ERR_NETWORK"))
    choose(page, "echo")
    ask(page, LONG)
    expect(answer(page)).to_contain_text("word5")
    page.context.set_offline(True)
    page.evaluate("dispatchEvent(new Event('offline'))")
    page.wait_for_timeout(1500)
    page.context.set_offline(False)
    echo.pause_s = 0.0
    finished(page, LONG)
    assert len(echo.asked) == 1


def test_two_tabs_show_the_same_chat(open_page, echo):
    echo.pause_s = 0.05
    first = open_page(context="one browser")
    choose(first, "echo")
    ask(first, LONG)
    expect(answer(first)).to_contain_text("word2")
    second = open_page(
        first.url.partition("/#")[2] and "#" + first.url.partition("#")[2], context="one browser"
    )
    expect(answer(second)).to_contain_text("word2")
    echo.pause_s = 0.0
    finished(first, LONG)
    finished(second, LONG)
    ask(second, "from the second tab")
    finished(second, "from the second tab")
    expect(first.locator("article")).to_have_count(4)
    finished(first, "from the second tab")
    ask(first, "from the first tab")
    finished(first, "from the first tab")
    expect(second.locator("article")).to_have_count(6)
    assert len(echo.asked) == 3


def test_two_browsers_that_ask_at_once_lose_nothing(open_page, echo):
    echo.pause_s = 0.02
    first = open_page()
    choose(first, "echo")
    ask(first, "begin")
    finished(first, "begin")
    second = open_page("#" + first.url.partition("#")[2])
    finished(second, "begin")
    ask(first, "question one")
    ask(second, "question two")
    for page in (first, second):
        page.wait_for_timeout(1500)
        page.reload()
    texts = set()
    for _ in range(2):
        expect(first.locator("article")).to_have_count(4)
        expect(answer(first).locator(".markdown")).not_to_be_empty()
        texts.add(answer(first).locator(".markdown").text_content().strip())
        question = first.locator("article.user").nth(1)
        expect(question).to_contain_text("/2")
        other = "Previous version" if "2/2" in question.inner_text() else "Next version"
        question.get_by_role("button", name=other).click()
    assert texts == {"question one", "question two"}


def test_a_killed_service_loses_nothing_that_was_read(open_page, echo, own):
    echo.pause_s = 0.1
    page = open_page(of=own, allowed=("ERR_", "404"))
    choose(page, "echo")
    ask(page, LONG)
    expect(answer(page)).to_contain_text("word20")
    own.kill()
    expect(page.get_by_text("The connection is lost")).to_be_visible()
    own.start()
    expect(answer(page)).to_contain_text("Interrupted before the end.")
    kept = answer(page).locator(".markdown").inner_text()
    assert LONG.startswith(kept)
    assert "word20" in kept
    page.reload()
    expect(answer(page)).to_contain_text("Interrupted before the end.")
    expect(answer(page).locator(".markdown")).to_have_text(kept)
    expect(page.locator("article")).to_have_count(2)
    answer(page).get_by_role("button", name="Go on").click()
    expect(answer(page)).to_contain_text("2/2")


def test_without_the_service_a_question_stays_and_can_be_asked_again(open_page, echo, own):
    page = open_page(of=own, allowed=("ERR_",))
    choose(page, "echo")
    page.wait_for_function(
        "() => performance.getEntriesByType('resource').some(({ name }) => name.endsWith('/markdown.js'))"
    )
    own.kill()
    ask(page, "are you there?")
    expect(page.get_by_text("Your text is still here")).to_be_visible()
    own.start()
    answer(page).get_by_role("button", name="Answer again").click()
    finished(page, "are you there?")


def test_a_question_before_the_list_of_chats_has_come_is_answered(open_page, service):
    page = open_page("app/share.html", allowed=("400",))
    page.get_by_role("alert").wait_for()

    def late(route) -> None:
        reply = route.fetch()
        page.wait_for_timeout(1500)
        route.fulfill(response=reply)

    page.route("**/chats", late)
    page.goto(service.url)
    choose(page, "mini")
    ask(page, "12+34-5=")
    expect(answer(page).locator(".figures")).to_be_visible()
    page.wait_for_timeout(500)
    expect(page.locator("nav li.current")).to_contain_text("12+34-5=")
