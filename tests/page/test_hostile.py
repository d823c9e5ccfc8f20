"""Nothing that a model says runs, or leaves the origin: not in a chat, and not on a shared page."""

import json

import pytest

from tests.page.hostile import hostile_texts

AT_ONCE = 500
FINDINGS = """() => {
    const wrong = [];
    if (window.ran) wrong.push(`ran ${window.ran}`);
    for (const element of document.querySelectorAll("#page *")) {
        for (const { name, value } of element.attributes) {
            if (name.startsWith("on")) wrong.push(element.outerHTML.slice(0, 200));
            if (/^(href|xlink:href|action|src|data)$/.test(name) && !/^(https?:|mailto:|[#/])/i.test(value))
                wrong.push(element.outerHTML.slice(0, 200));
        }
        const never = /^(script|iframe|object|embed|style|link|base|meta|form|img|video|audio|use)$/i;
        if (never.test(element.tagName)
            && !element.closest("form.composer") && element.className !== "composer")
            wrong.push(element.outerHTML.slice(0, 200));
    }
    return wrong.slice(0, 5);
}"""


def message(number: int, text: str) -> dict:
    return {
        "id": f"message{number:06}",
        "parent": f"message{number - 1:06}" if number else None,
        "role": "assistant",
        "content": text,
        "reasoning_content": text,
        "model": text[:40],
        "attachments": [{"name": text[:200], "text": text}],
        "created_ms": number,
        "finish_reason": "stop",
        "error": None,
        "is_running": False,
        "figures": {},
    }


@pytest.mark.parametrize("count", [1_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_shared_page_runs_nothing(open_page, service, count):
    texts = list(hostile_texts(count, seed=count))
    page = open_page("app/share.html", allowed=("KaTeX", "LaTeX", "400"))
    page.get_by_role("alert").wait_for()
    asked: list[str] = []
    dialogs: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    shared: dict = {}
    page.route("**/shares/*/content", lambda route: route.fulfill(json=shared))
    for begin in range(0, count, AT_ONCE):
        messages = [message(number, text) for number, text in enumerate(texts[begin : begin + AT_ONCE])]
        content = {"title": texts[begin], "created_ms": 0, "messages": messages}
        shared.update(content)
        page.goto(f"{service.url}/app/share.html")
        page.locator("article").nth(len(messages) - 1).wait_for()
        page.wait_for_timeout(200)
        assert page.evaluate(FINDINGS) == []
    assert dialogs == []
    assert [url for url in asked if not url.startswith(service.url + "/")] == []
    assert {url.removeprefix(service.url).split("/")[1] for url in asked} <= {"app", "shares", "icon.svg", ""}


def test_a_chat_runs_nothing(open_page, service, tmp_path):
    texts = list(hostile_texts(400, seed=1))
    messages = [message(number, text) for number, text in enumerate(texts)]
    chat = {"id": "hostile-chat", "title": texts[0], "messages": messages, "leaf": messages[-1]["id"]}
    file = tmp_path / "chats.json"
    file.write_text(json.dumps({"format": "shoestring-chats-2", "chats": [chat]}))
    page = open_page(allowed=("KaTeX", "LaTeX"))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.get_by_role("button", name="Your chats").click()
    page.locator(".chat-files input[type=file]").set_input_files(file)
    page.get_by_text("1 chats are here now.").wait_for()
    page.goto(f"{service.url}/#/chat/hostile-chat")
    page.locator("article").first.wait_for()
    seen: set[str] = set()
    for _ in range(200):
        seen.update(page.locator("article").evaluate_all("all => all.map((each) => each.dataset.id)"))
        assert page.evaluate(FINDINGS) == []
        if len(seen) == len(texts):
            break
        page.locator(".scroller").evaluate("element => element.scrollTo(0, 0)")
        page.wait_for_timeout(30)
    assert len(seen) == len(texts)
    assert [url for url in asked if not url.startswith(service.url + "/")] == []
