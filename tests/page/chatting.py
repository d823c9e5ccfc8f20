"""Hands for a chat page: ask, and find answers."""

from playwright.sync_api import Locator, Page, expect


def choose(page: Page, model: str) -> None:
    """Choose the model of the chat."""
    page.get_by_label("Model", exact=True).select_option(model)


def ask(page: Page, text: str) -> None:
    """Ask something."""
    box = page.get_by_label("Ask something")
    box.fill(text)
    box.press("Enter")


def answer(page: Page, number: int = -1) -> Locator:
    """An answer, the last one if none is said."""
    return page.locator("article.assistant").nth(number)


def finished(page: Page, text: str) -> None:
    """Wait until the last answer has this text, and nothing is written any more."""
    expect(answer(page).locator(".markdown")).to_have_text(text)
    expect(page.get_by_role("button", name="Stop")).to_have_count(0)


def chat_row(page: Page, title: str) -> Locator:
    """A chat in the list."""
    return page.locator("nav li").filter(has=page.get_by_role("button", name=title, exact=True))


def open_actions(page: Page, title: str) -> None:
    """Open the actions of a chat in the list."""
    row = chat_row(page, title)
    row.hover()
    row.get_by_role("button", name=f"Actions for {title}").click()
