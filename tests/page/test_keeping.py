"""Keeping chats: found again, sorted, shared, taken out and brought in, or kept nowhere."""

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.page.chatting import answer, ask, chat_row, choose, finished, open_actions

FIXTURES = Path(__file__).parent / "exports"


def new_chat(page: Page, text: str) -> None:
    page.get_by_role("button", name="New chat").first.click()
    choose(page, "echo")
    ask(page, text)
    finished(page, text)


@pytest.mark.parametrize("place", ["server", "browser"])
def test_chats_are_found_renamed_pinned_sorted_and_removed(open_page, place):
    page = open_page()
    page.evaluate(f"localStorage.setItem('place', '{place}')")
    page.reload()
    new_chat(page, f"rivers of {place}")
    new_chat(page, f"mountains in {place}")
    page.reload()
    page.get_by_label("Search chats").fill(f"{place} RIVERS")
    expect(chat_row(page, f"rivers of {place}")).to_be_visible()
    expect(chat_row(page, f"mountains in {place}")).to_have_count(0)
    page.get_by_label("Search chats").fill("nothing has this")
    expect(page.get_by_text("Nothing has all of these words.")).to_be_visible()
    page.get_by_label("Search chats").fill("")
    open_actions(page, f"rivers of {place}")
    page.get_by_label("Rename").fill(f"Water {place}")
    page.get_by_label("Rename").press("Enter")
    page.get_by_label("Folder").fill(f"Earth {place}")
    page.get_by_label("Folder").press("Tab")
    open_actions(page, f"mountains in {place}")
    page.get_by_role("button", name="Pin", exact=True).click()
    expect(page.locator("nav details").filter(has=page.get_by_text("Pinned"))).to_be_visible()
    page.wait_for_timeout(300)  # the browser's database writes after it was told to
    page.reload()
    folder = page.locator("nav details").filter(has=page.get_by_text(f"Earth {place}", exact=True))
    expect(folder.get_by_role("button", name=f"Water {place}", exact=True)).to_be_visible()
    pinned = page.locator("nav details").filter(has=page.get_by_text("Pinned"))
    expect(pinned.get_by_role("button", name=f"mountains in {place}", exact=True)).to_be_visible()
    open_actions(page, f"mountains in {place}")
    page.get_by_role("button", name="Delete").click()
    expect(chat_row(page, f"mountains in {place}")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    chat_row(page, f"mountains in {place}").get_by_role("button").first.click()
    finished(page, f"mountains in {place}")


def test_a_temporary_chat_is_written_nowhere(open_page):
    page = open_page()
    written: list[str] = []
    page.on("request", lambda request: written.append(f"{request.method} {request.url}"))
    page.get_by_role("button", name="Temporary chat").click()
    expect(page.get_by_text("It is written nowhere")).to_be_visible()
    choose(page, "echo")
    ask(page, "a secret")
    finished(page, "a secret")
    assert not [line for line in written if line.startswith("PUT")]
    assert page.evaluate("indexedDB.databases().then((all) => all.length)") <= 1
    page.reload()
    expect(page.get_by_text("a secret")).to_have_count(0)


def test_a_chat_kept_in_the_browser_is_not_sent_to_be_kept(open_page):
    page = open_page()
    page.get_by_role("button", name="Your chats").click()
    page.get_by_label("New chats are kept").select_option("browser")
    written: list[str] = []
    page.on("request", lambda request: written.append(f"{request.method} {request.url}"))
    new_chat(page, "only here")
    assert not [line for line in written if line.startswith("PUT")]
    page.reload()
    finished(page, "only here")


def test_a_shared_chat_is_read_by_anyone_until_it_is_revoked(open_page, service):
    page = open_page()
    page.get_by_role("button", name="New chat").first.click()
    choose(page, "echo")
    ask(page, "to be **shared**")
    finished(page, "to be shared")
    open_actions(page, "to be **shared**")
    page.get_by_role("button", name="Share", exact=True).click()
    link = page.get_by_label("Link to the shared chat").input_value()
    assert link.startswith(service.url + "/share/")
    ask(page, "said later")
    finished(page, "said later")
    reader = open_page(link.removeprefix(service.url + "/"), allowed=("404",))
    expect(reader.locator("article.assistant strong")).to_have_text("shared")
    expect(reader.get_by_text("said later")).to_have_count(0)
    assert reader.context.cookies() == []
    page.get_by_role("button", name="Your chats").click()
    page.get_by_role("button", name="Stop sharing").first.click()
    expect(page.get_by_role("link", name="to be **shared**")).to_have_count(0)
    reader.reload()
    expect(reader.get_by_text("This chat is not shared any more.")).to_be_visible()


def test_one_chat_is_saved_in_three_forms(open_page, tmp_path):
    page = open_page()
    page.get_by_role("button", name="New chat").first.click()
    choose(page, "echo")
    ask(page, "<think>hm</think>Some *text* and <b onclick=x>html</b>")
    finished(page, "Some text and <b onclick=x>html")
    title = page.locator("header.bar h1").inner_text()
    files = {}
    for form, ending in (("Markdown", "md"), ("HTML", "html"), ("JSON", "json")):
        open_actions(page, title)
        with page.expect_download() as download:
            page.locator(".chat-menu").get_by_role("button", name=form).click()
        assert download.value.suggested_filename.endswith(f".{ending}")
        path = tmp_path / f"chat.{ending}"
        download.value.save_as(path)
        files[ending] = path.read_text()
    assert "> hm" in files["md"]
    assert "Some *text*" in files["md"]
    assert "<em>text</em>" in files["html"]
    assert "onclick=x>" not in files["html"]
    assert not re.search(r"<script|src=|href=\"http", files["html"])
    assert json.loads(files["json"])["chats"][0]["messages"][1]["reasoning_content"] == "hm"
    shown = page.context.new_page()
    shown.goto(f"file://{tmp_path}/chat.html")
    expect(shown.locator("article.assistant em")).to_have_text("text")


def test_all_chats_come_back_from_their_file(open_page, tmp_path):
    page = open_page()
    new_chat(page, "to come back")
    page.get_by_role("button", name="Your chats").click()
    with page.expect_download() as download:
        page.locator(".chat-files").get_by_role("button", name="JSON").click()
    download.value.save_as(tmp_path / "all.json")
    other = open_page()  # another browser, where chats are kept in the browser
    other.evaluate("localStorage.setItem('place', 'browser')")
    chats = json.loads((tmp_path / "all.json").read_text())["chats"]
    kept = [chat for chat in chats if chat["title"] == "to come back"]
    kept[0]["id"] = "another-one"
    (tmp_path / "one.json").write_text(json.dumps({"format": "shoestring-chats-2", "chats": kept[:1]}))
    other.reload()
    for _ in range(2):  # the second time nothing is doubled
        other.goto(other.url.partition("#")[0])
        other.get_by_role("button", name="Your chats").click()
        other.locator(".chat-files input[type=file]").set_input_files(tmp_path / "one.json")
        expect(other.get_by_text("1 chats are here now.")).to_be_visible()
    other.goto(f"{other.url.partition('#')[0]}#/chat/another-one")
    finished(other, "to come back")
    expect(other.locator("article")).to_have_count(2)


@pytest.mark.parametrize("file", ["chatgpt.json", "openwebui.json"])
def test_chats_of_other_pages_are_read(open_page, file):
    page = open_page()
    page.get_by_role("button", name="Your chats").click()
    page.locator(".chat-files input[type=file]").set_input_files(FIXTURES / file)
    expect(page.get_by_text("1 chats are here now.")).to_be_visible()
    title = {"chatgpt.json": "Primes below ten", "openwebui.json": "Boiling water"}[file]
    chat_row(page, title).get_by_role("button").first.click()
    said = {"chatgpt.json": "2, 3, 5 and 7.", "openwebui.json": "At 100 °C."}[file]
    finished(page, said)
    expect(answer(page).locator(".thoughts")).to_contain_text("Let me think")
    expect(answer(page)).to_contain_text("2/2")
    page.reload()
    finished(page, said)


def test_a_file_that_has_no_chats_is_refused_in_one_sentence(open_page, tmp_path):
    page = open_page()
    page.get_by_role("button", name="Your chats").click()
    for number, text in enumerate(("no json", "[]", '{"chats": [{}]}', '[{"mapping": {}}]', "null")):
        file = tmp_path / f"{number}.json"
        file.write_text(text)
        page.locator(".chat-files input[type=file]").set_input_files(file)
        expect(page.get_by_text("This file has no chats that this page can read.")).to_be_visible()


def test_the_memory_is_off_at_first_and_told_when_it_is_on(open_page, echo):
    page = open_page("#/memory")
    expect(page.get_by_label("A fact")).to_have_count(0)
    page.get_by_label("Tell models these facts").check()
    page.get_by_label("A fact").fill("I live in Ulm.")
    page.get_by_role("button", name="Add").click()
    expect(page.locator("li", has_text="I live in Ulm.")).to_be_visible()
    page.get_by_label("Tell models these facts").uncheck()
    new_chat(page, "hello")
    assert [message["role"] for message in echo.asked[-1]["messages"]] == ["user"]
    page.goto(page.url.partition("#")[0] + "#/memory")
    page.get_by_label("Tell models these facts").check()
    new_chat(page, "hello again")
    assert "I live in Ulm." in echo.asked[-1]["messages"][0]["content"]
    page.goto(page.url.partition("#")[0] + "#/memory")
    page.get_by_role("button", name="Forget", exact=True).click()
    expect(page.get_by_text("No facts yet.")).to_be_visible()
    page.get_by_label("Tell models these facts").uncheck()
