"""The chat page in a browser: its first load, and a chat of 2,000 messages.

    python bench/page.py [--repeats 5] [--messages 2000] [--json FILE]

A service with `mini` and an upstream that says what it was asked run beside the browser on the same machine.
The exit code is 3 when the first load has more than 60 kB of compressed script, when the page is not ready
within 1 s (median), or when scrolling or streaming in the long chat has a task of more than 100 ms.
"""

import argparse
import gzip
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.page.echo import Echo
from tests.page.running import Running

MOST_BYTES, MOST_READY_S, MOST_TASK_MS = 60_000, 1.0, 100
WORDS = "The quick brown fox jumps over the lazy dog. "
CODE = "\n\n```python\ndef double(x):\n    return 2 * x\n```\n\n- one\n- **two**\n- three\n"
WATCH_TASKS = """() => {
    window.tasks = [];
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) window.tasks.push(Math.round(entry.duration));
    }).observe({ type: "longtask" });
}"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        sys.exit("bench/page.py needs a browser: apt install chromium")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        echo = Echo()
        service = Running(Path(folder), "mini", "--upstream", echo.url)
        service.start()
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            result = first_loads(browser, service.url, arguments.repeats)
            result |= long_chat(browser, service.url, echo, arguments.messages, Path(folder))
        finally:
            browser.close()
            service.stop()
            echo.close()
    for name, value in result.items():
        print(f"{name:44} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    is_met = (
        result["script of the first load, bytes (gzip)"] <= MOST_BYTES
        and result["ready, s (median)"] <= MOST_READY_S
        and max(result["longest task scrolling, ms"], result["longest task streaming, ms"]) <= MOST_TASK_MS
    )
    print("PASS" if is_met else "FAIL")
    return 0 if is_met else 3


def first_loads(browser: Browser, url: str, repeats: int) -> dict:
    """A new browser each time: the compressed size of its scripts, and the seconds until it is ready."""
    seconds, sizes = [], {}
    for _ in range(repeats):
        context = browser.new_context()
        page = context.new_page()
        bodies: dict[str, bytes] = {}
        page.on("response", lambda reply, bodies=bodies: _keep(reply, bodies))
        page.goto(url)
        page.locator(".composer textarea").wait_for()
        ready_ms = page.evaluate(
            "performance.getEntriesByName('ready').length"
            " ? performance.getEntriesByName('ready')[0].startTime : performance.now()"
        )
        seconds.append(ready_ms / 1000)
        sizes = {name: len(gzip.compress(body, 9)) for name, body in bodies.items()}
        context.close()
    scripts = sum(size for name, size in sizes.items() if name.endswith(".js"))
    return {
        "script of the first load, bytes (gzip)": scripts,
        "all of the first load, bytes (gzip)": sum(sizes.values()),
        "ready, s (median)": round(statistics.median(seconds), 3),
        "ready, s (all)": [round(each, 3) for each in seconds],
    }


def _keep(reply, bodies: dict[str, bytes]) -> None:
    name = reply.url.rpartition("/")[2]
    if reply.url.endswith((".js", ".css", "/")) and reply.status == 200:
        bodies[name] = reply.body()


def long_chat(browser: Browser, url: str, echo: Echo, count: int, folder: Path) -> dict:
    """A chat of many messages: the longest task when it is opened, scrolled through, and answered in."""
    file = folder / "long.json"
    file.write_text(json.dumps({"format": "shoestring-chats-2", "chats": [chat(count)]}))
    page = browser.new_context().new_page()
    page.goto(url)
    page.get_by_role("button", name="Your chats").click()
    page.locator(".chat-files input[type=file]").set_input_files(file)
    page.get_by_text("1 chats are here now.").wait_for()
    page.evaluate(WATCH_TASKS)
    page.evaluate("location.hash = '/chat/long-chat'")
    page.locator("article").first.wait_for()
    page.wait_for_timeout(1000)
    opening = longest(page)
    scroll(page, -900, count)
    if not page.locator("article").first.inner_text().startswith("0. "):
        sys.exit("the first message was not reached")
    scroll(page, 1500, count)
    scrolling = longest(page)
    in_page = page.locator("article").count()
    page.locator(".scroller").evaluate("element => element.scrollTo(0, element.scrollHeight)")
    echo.pause_s = 0.005
    page.locator(".composer textarea").fill((WORDS * 20 + CODE) * 4)
    page.wait_for_timeout(500)
    longest(page)  # the driver's own writing into the field is no part of it
    page.locator(".composer textarea").press("Enter")
    page.get_by_role("button", name="Stop").wait_for()
    page.get_by_role("button", name="Send").wait_for(timeout=120_000)
    return {
        "longest task opening, ms": opening,
        "longest task scrolling, ms": scrolling,
        "messages on the page after scrolling": in_page,
        "longest task streaming, ms": longest(page),
    }


def scroll(page: Page, by: int, count: int) -> None:
    """Scroll until nothing moves any more."""
    for _ in range(count):
        page.locator(".scroller").evaluate(f"element => element.scrollBy(0, {by})")
        page.wait_for_timeout(30)
        is_at_edge = page.locator(".scroller").evaluate(
            "element => element.scrollTop < 1"
            " || element.scrollHeight - element.scrollTop - element.clientHeight < 1"
        )
        if is_at_edge:
            return


def longest(page: Page) -> int:
    """The longest task since the last call; 0 when none took 50 ms."""
    return page.evaluate("Math.max(0, ...window.tasks.splice(0))")


def chat(count: int) -> dict:
    """A chat whose answers have text, lists and code."""
    messages = []
    for number in range(count):
        role = "assistant" if number % 2 else "user"
        text = WORDS * 3 if role == "user" else WORDS * 10 + CODE
        parent = f"message-{number - 1:06}" if number else None
        fields = {"id": f"message-{number:06}", "parent": parent, "role": role, "created_ms": number}
        messages.append({**fields, "content": f"{number}. {text}", "model": "echo"})
    settings = {"model": "echo"}
    fields = {"id": "long-chat", "title": "Long", "leaf": messages[-1]["id"], "settings": settings}
    return {**fields, "messages": messages}


if __name__ == "__main__":
    sys.exit(main())
