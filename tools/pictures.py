"""Take the pictures of the page in docs/pictures: a real service, real models, a real run.

    .venv/bin/python tools/pictures.py [--runs runs] [--only chat,training]

Needs Chromium (apt install chromium fonts-noto-cjk) and, for the training page, a folder of runs such as
`make demo` leaves. `smollm2` is in the pictures when it was pulled.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
sys.path.insert(0, str(ROOT))

from tests.page.chatting import answer, ask, choose  # noqa: E402
from tests.page.running import Running  # noqa: E402

DESK, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
QUESTIONS = ("make 24 from 3,8,1", "make 55 from 9,6,1", "17+25-8=", "make 30 from 3,7,9")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--only", default=",".join(PICTURES))
    arguments = parser.parse_args()
    path = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if path is None:
        sys.exit("pictures need a browser: apt install chromium")
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        models = ["mini", *(["smollm2"] if _has_smollm2() else [])]
        service = Running(Path(folder), *models, f"--set=runs={arguments.runs.resolve()}")
        service.start()
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            for name in arguments.only.split(","):
                PICTURES[name](browser, service.url, name)
                print(f"docs/pictures/{name}.png")
        finally:
            browser.close()
            service.stop()


def _has_smollm2() -> bool:
    from shoestring.errors import ShoestringError
    from shoestring.model.hf.hub import resolve

    try:
        resolve("smollm2")
    except ShoestringError:
        return False
    return True


def open_page(browser: Browser, url: str, size: dict, scheme: str = "light") -> Page:
    context = browser.new_context(viewport=size, color_scheme=scheme, locale="en", device_scale_factor=1)
    page = context.new_page()
    page.goto(url)
    page.locator("main").first.wait_for()
    return page


def take(page: Page, name: str) -> None:
    page.wait_for_timeout(800)
    page.screenshot(path=FOLDER / f"{name}.png")


def chat(browser: Browser, url: str, name: str) -> None:
    page = open_page(browser, url, DESK)
    for question in QUESTIONS:
        page.get_by_role("button", name="New chat").first.click()
        choose(page, "mini")
        ask(page, question)
        answer(page).locator(".figures").wait_for()
    answer(page).locator("summary").click()
    take(page, name)


def chat_phone(browser: Browser, url: str, name: str) -> None:
    page = open_page(browser, url, PHONE, "dark")
    choose(page, "mini")
    ask(page, "make 24 from 3,8,1")
    answer(page).locator(".figures").wait_for()
    answer(page).locator("summary").click()
    take(page, name)


def thinking(browser: Browser, url: str, name: str) -> None:
    page = open_page(browser, url, DESK)
    choose(page, "mini")
    ask(page, "make 24 from 3,8,1")
    answer(page).get_by_role("link", name="How it thinks").click()
    page.locator("canvas, .tokens").first.wait_for()
    take(page, name)


def route(hash: str, scheme: str = "light") -> Callable[[Browser, str, str], None]:
    def picture(browser: Browser, url: str, name: str) -> None:
        page = open_page(browser, f"{url}/#/{hash}", DESK, scheme)
        page.locator("h1").first.wait_for()
        page.wait_for_timeout(2500)
        take(page, name)

    return picture


PICTURES = {
    "chat": chat,
    "chat-phone": chat_phone,
    "thinking": thinking,
    "training": route("training"),
    "translate": route("translate", "dark"),
    "models": route("models"),
    "api": route("api", "dark"),
}

if __name__ == "__main__":
    main()
