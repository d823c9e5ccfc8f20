"""The translate page: a text that grows, tags of files kept, files, languages, and errors in a sentence."""

import re

import pytest
from playwright.sync_api import expect

TEXT = "# Title\n\n- one word\n- two words\n"


@pytest.fixture
def shown(open_page):
    """Opens the page, where the model `echo` says each text again."""

    def show(**fields):
        page = open_page("#/translate", **fields)
        page.get_by_role("heading", name="Translate", exact=True).wait_for()
        page.get_by_role("combobox", name=re.compile("^Model")).select_option("echo")
        page.get_by_role("combobox", name=re.compile("^From")).select_option("EN")
        page.get_by_role("combobox", name=re.compile("^Into")).select_option("DE")
        return page

    return show


def result(page):
    return page.get_by_role("region", name="Translation")


@pytest.mark.parametrize("size", ["phone", "desk"])
def test_a_text_keeps_its_form_and_can_be_taken_away(shown, size):
    page = shown(size=size)
    box = page.get_by_label("Text to translate")
    box.fill(TEXT)
    box.press("Control+Enter")
    result(page).get_by_text("32 characters by echo").wait_for()
    assert result(page).locator(".result").inner_text().rstrip("\n") == TEXT.rstrip("\n")
    result(page).get_by_role("button", name="Copy").click()
    result(page).get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == TEXT
    with page.expect_download() as saved:
        result(page).get_by_role("button", name="Download").click()
    assert saved.value.suggested_filename == "translation.de.txt"
    assert saved.value.path().read_text() == TEXT
    page.get_by_role("button", name="Swap languages").click()
    assert box.input_value() == TEXT
    assert page.get_by_role("combobox", name=re.compile("^From")).input_value() == "DE"
    assert page.get_by_role("combobox", name=re.compile("^Into")).input_value() in ("EN-GB", "EN-US")


def test_a_long_text_grows_and_can_be_stopped(shown, echo):
    page = shown()
    echo.pause_s = 0.2
    page.get_by_label("Text to translate").fill("one two three four five six seven eight nine ten " * 3)
    page.get_by_role("button", name="Translate", exact=True).click()
    result(page).get_by_text("one two").wait_for()
    result(page).get_by_text("% done").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Translate", exact=True).wait_for()
    assert "ten one two three four five six seven eight nine ten one" not in result(page).inner_text()


def test_a_file_keeps_its_format(shown, tmp_path):
    page = shown()
    file = tmp_path / "notes.html"
    file.write_text("<h1>Title</h1><p>Some <b>bold</b> words</p>")
    page.locator("input[type=file]").set_input_files(file)
    page.get_by_text("notes.html").wait_for()
    page.get_by_role("button", name="Translate", exact=True).click()
    result(page).get_by_text("notes.de.html").wait_for()
    with page.expect_download() as saved:
        result(page).get_by_role("button", name="Download").click()
    content = saved.value.path().read_text()
    assert content.startswith("<h1>")
    assert "<b>" in content
    plain = tmp_path / "plain.md"
    plain.write_text("# From a file")
    page.locator("input[type=file]").set_input_files(plain)
    expect(page.get_by_label("Text to translate")).to_have_value("# From a file")


def test_what_went_wrong_is_a_sentence(shown, tmp_path):
    page = shown(allowed=("400",))
    broken = tmp_path / "broken.docx"
    broken.write_bytes(b"PK")
    page.locator("input[type=file]").set_input_files(broken)
    page.get_by_role("button", name="Translate", exact=True).click()
    page.get_by_role("alert").get_by_text("Invalid file").wait_for()
    page.get_by_role("button", name="Clear").click()
    assert page.get_by_role("button", name="Translate", exact=True).is_disabled()


def test_languages_have_names_in_the_readers_language(open_page):
    page = open_page("#/translate", language="de", size="tablet", scheme="dark")
    page.get_by_role("heading", name="Übersetzen").wait_for()
    options = page.get_by_label("Nach").locator("option").all_inner_texts()
    assert "Deutsch" in options
    assert "Portugiesisch (Brasilien)" in options
    assert page.get_by_label("Nach").input_value() == "DE"
    page.get_by_label("Anrede").select_option("more")
