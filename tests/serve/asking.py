"""Answers that are asked for and read as the page does it; and sites whose answers are written often."""

import json
import time

from tests.serve.words import CHAT, WORDS

TEXT = "".join(f" {number}" for number in range(1, WORDS + 1))
ANSWER = {"id": "answer-1", "chat": "chat-0001", "request": CHAT}
MESSAGE = {"id": "answer-1", "role": "assistant", "is_running": True}


def words(site):
    """The model of a site."""
    return site.app.state.service.backends["words"]


def ask(browser, **fields):
    """Keep a chat with a message for an answer, and begin it."""
    assert browser.put("/chats/chat-0001", json={"id": "chat-0001", "messages": [MESSAGE]}).status_code == 204
    reply = browser.post("/answers", json={**ANSWER, **fields})
    assert (reply.status_code, reply.json()) == (202, {"id": "answer-1"}), reply.text


def message(browser, number=0):
    return browser.get("/chats/chat-0001").json()["messages"][number]


def until(look, seconds=10.0):
    """What a look gives, as soon as that is something."""
    end_s = time.monotonic() + seconds
    while not (result := look()):
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return result


def ended(browser, number=0):
    return until(lambda: not (last := message(browser, number))["is_running"] and last)


def events(browser, after=0, answer_id="answer-1"):
    """All events of an answer: (id, data)."""
    reply = browser.get(f"/answers/{answer_id}", params={"after": after})
    assert reply.status_code == 200, reply.text
    pairs, last = [], None
    for line in reply.text.split("\n"):
        name, _, value = line.partition(": ")
        last = int(value) if name == "id" else last
        if name == "data":
            pairs.append((last, value if value == "[DONE]" else json.loads(value)))
    return pairs


def text_of(pairs):
    choices = [choice for _, data in pairs if data != "[DONE]" for choice in data.get("choices", ())]
    return "".join(choice["delta"].get("content", "") for choice in choices)
