"""The chat: a question, an answer that is read along, and what can be done with both."""

import re

import pytest
from playwright.sync_api import expect

from tests.page.chatting import answer, ask, choose, finished
from tests.page.people import make_person, sign_in

EVERYTHING = """# Title

A **bold** word, a [link](https://example.com/) and `code`.

| a | b |
|---|---|
| 1 | 2 |

```python
print("hello")
```

Half is $\\frac{1}{2}$, and it cost $5 or $6.
"""


@pytest.mark.parametrize("size", ["desk", "phone"])
def test_mini_solves_a_puzzle_and_shows_its_thinking_after_one_click(open_page, size):
    page = open_page(size=size)
    page.get_by_role("button", name="make 30 from 3,7,9").click()
    expect(answer(page).locator(".markdown")).to_have_text(re.compile(r"[379]\D+[379]\D+[379]"))
    expect(answer(page).locator("summary")).to_contain_text("Thought for")
    expect(answer(page).locator(".figures")).to_contain_text("tokens/s")
    answer(page).locator("summary").click()
    expect(answer(page).locator(".thoughts")).to_contain_text(re.compile(r"\d"))


def test_markdown_code_tables_and_formulas_are_drawn(open_page):
    page = open_page()
    choose(page, "echo")
    ask(page, EVERYTHING)
    said = answer(page).locator(".markdown")
    expect(said.locator("h1")).to_have_text("Title")
    expect(said.locator("td")).to_have_count(2)
    expect(said.locator("math mfrac")).to_be_visible()
    expect(said).to_contain_text("it cost $5 or $6.")
    link = said.get_by_role("link", name="link")
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener noreferrer")
    said.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == 'print("hello")'


def test_an_answer_is_stopped_and_goes_on(open_page, echo):
    echo.pause_s = 0.1
    page = open_page()
    choose(page, "echo")
    ask(page, " ".join(f"word{number}" for number in range(100)))
    expect(answer(page)).to_contain_text("word3")
    page.get_by_role("button", name="Stop").click()
    expect(answer(page)).to_contain_text("Stopped before the end.")
    stopped = answer(page).locator(".markdown").inner_text()
    assert "word99" not in stopped
    echo.pause_s = 0.0
    answer(page).get_by_role("button", name="Go on").click()
    expect(answer(page).locator(".markdown")).to_contain_text(stopped)
    expect(answer(page)).to_contain_text("2/2")
    last = echo.asked[-1]
    assert (
        last["messages"][-1] == {"role": "assistant", "content": stopped} or last["messages"][-1]["content"]
    )


def test_questions_and_answers_have_versions(open_page):
    page = open_page()
    choose(page, "echo")
    ask(page, "first question")
    finished(page, "first question")
    question = page.locator("article.user").first
    question.get_by_role("button", name="Edit").click()
    question.get_by_label("Edit").fill("second question")
    question.get_by_role("button", name="Send").click()
    finished(page, "second question")
    expect(question).to_contain_text("2/2")
    question.get_by_role("button", name="Previous version").click()
    finished(page, "first question")
    answer(page).get_by_role("button", name="Answer again").click()
    expect(answer(page)).to_contain_text("2/2")
    answer(page).get_by_role("button", name="Edit").click()
    answer(page).get_by_label("Edit").fill("an answer of mine")
    answer(page).get_by_role("button", name="Save").click()
    page.reload()
    finished(page, "an answer of mine")
    expect(page.locator("article")).to_have_count(2)


def test_models_answer_side_by_side_and_one_is_chosen(open_page, echo):
    page = open_page()
    choose(page, "echo")
    page.get_by_role("button", name="Settings").click()
    page.get_by_role("checkbox", name="parrot").check()
    ask(page, "both of you")
    columns = page.locator(".columns section")
    expect(columns).to_have_count(2)
    expect(columns.locator(".markdown")).to_have_text(["both of you", "both of you"])
    columns.nth(1).get_by_role("button", name="Go on with this one").click()
    expect(columns.nth(1)).to_contain_text("The chat goes on with this one.")
    page.get_by_role("checkbox", name="parrot").uncheck()
    ask(page, "and now one")
    finished(page, "and now one")
    page.reload()
    expect(columns).to_have_count(2)
    expect(columns.nth(1)).to_contain_text("The chat goes on with this one.")


def test_settings_of_a_chat_reach_the_model(open_page, echo):
    page = open_page()
    choose(page, "echo")
    page.get_by_role("button", name="Settings").click()
    page.get_by_label("Instructions for the model").fill("Be brief.")
    page.get_by_role("combobox", name=re.compile("^Thinking")).select_option("off")
    page.get_by_label("Temperature").fill("0.3")
    page.get_by_label("Longest answer, in tokens").fill("2")
    ask(page, "one two three")
    finished(page, "one two")
    expect(answer(page)).to_contain_text("The answer reached its longest length.")
    body = echo.asked[-1]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"]) == (0.3, 2)


def test_thinking_is_shown_apart(open_page):
    page = open_page()
    choose(page, "echo")
    ask(page, "<think>let me see</think>It is so.")
    finished(page, "It is so.")
    expect(answer(page).locator(".thoughts")).to_be_hidden()
    answer(page).locator("summary").click()
    expect(answer(page).locator(".thoughts")).to_have_text("let me see")


def test_files_are_read_and_sent(open_page, echo, tmp_path):
    notes = tmp_path / "notes.md"
    notes.write_text("Gold is heavy.")
    page = open_page()
    choose(page, "echo")
    page.locator("input[type=file]").first.set_input_files(notes)
    expect(page.locator(".composer")).to_contain_text("notes.md")
    ask(page, "What is heavy?")
    expect(page.locator("article.user")).to_contain_text("notes.md")
    expect(answer(page).locator(".markdown")).to_contain_text("Gold is heavy.")
    assert echo.asked[-1]["messages"][-1]["content"].startswith("What is heavy?\n\n")


def test_a_long_text_that_is_pasted_becomes_a_file(open_page):
    page = open_page()
    page.evaluate("navigator.clipboard.writeText('long text '.repeat(1000))")
    page.get_by_label("Ask something").press("Control+v")
    expect(page.locator(".composer")).to_contain_text("Pasted text")
    expect(page.locator(".composer")).to_contain_text("10000 characters")
    page.get_by_role("button", name="Remove Pasted text").click()
    expect(page.locator(".composer .files")).to_have_count(0)


def test_an_answer_that_costs_money_says_how_much(open_page, paid):
    make_person(paid, "payer@example.org", "5")
    page = open_page("#/sign-in", of=paid)
    sign_in(page, paid, "payer@example.org", "#/new")
    ask(page, "12+34-5=")
    expect(answer(page).locator(".figures")).to_contain_text(re.compile(r"0\.0\d+ (USD|CNY)"))
