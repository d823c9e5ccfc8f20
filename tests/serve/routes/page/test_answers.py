"""An answer goes on without its reader, once, in its turn, for its price, and is in its chat in the end."""

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats import answers as module
from tests.serve.asking import ANSWER, MESSAGE, TEXT, ask, ended, events, message, text_of, until, words
from tests.serve.words import CHAT, WORDS

pytestmark = pytest.mark.usefixtures("quick_answers")


def test_an_answer_without_a_reader_is_in_its_chat(site):
    ada = site.person()
    ask(ada)
    last = ended(ada)
    assert (last["content"], last["finish_reason"], last["error"]) == (TEXT, "stop", None)
    assert last["figures"]["completion_tokens"] == WORDS
    assert 0 <= last["figures"]["first_s"] <= last["figures"]["total_s"]
    assert [chat["id"] for chat in ada.get("/chats?search=7 8").json()["chats"]] == ["chat-0001"]


def test_it_is_written_while_it_grows(site):
    ada = site.person()
    words(site).gate.clear()
    ask(ada)
    growing = until(lambda: (last := message(ada))["content"] and last)
    assert growing["is_running"]
    assert TEXT.startswith(growing["content"])
    assert ada.get("/answers").json() == {"answers": [{"id": "answer-1", "chat": "chat-0001"}]}
    words(site).gate.set()
    assert ended(ada)["content"] == TEXT
    assert ada.get("/answers").json() == {"answers": []}


def test_it_can_be_read_from_every_event_on(file_site):
    ada = file_site.person()
    ask(ada)
    ended(ada)
    pairs = events(ada)
    assert text_of(pairs) == TEXT
    assert pairs[-1][1] == "[DONE]"
    assert pairs[-2][1]["figures"] == message(ada)["figures"]
    assert pairs[-3][1]["choices"][0]["finish_reason"] == "stop"
    for after in range(1, len(TEXT) + 3):
        assert text_of(events(ada, after)) == TEXT[after - 1 :]


def test_the_same_answer_is_begun_once(file_site):
    ada = file_site.person()
    words(file_site).gate.clear()
    ask(ada)
    assert ada.post("/answers", json=ANSWER).status_code == 202
    until(lambda: words(file_site).num_open)
    assert words(file_site).num_open == 1
    words(file_site).gate.set()
    ended(ada)
    assert ada.post("/answers", json=ANSWER).status_code == 202
    file_site.app.state.answers._answers.clear()  # as after a restart
    assert ada.post("/answers", json=ANSWER).status_code == 202
    assert ada.get("/answers/answer-1").status_code == 404
    assert message(ada)["content"] == TEXT


def test_a_client_cannot_change_what_is_written(file_site):
    ada = file_site.person()
    words(file_site).gate.clear()
    ask(ada)
    until(lambda: message(ada)["content"])
    for is_running in (False, True):
        mine = {**MESSAGE, "content": "mine", "is_running": is_running}
        assert ada.put("/chats/chat-0001/messages/answer-1", json=mine).status_code == 204
    words(file_site).gate.set()
    assert ended(ada)["content"] == TEXT
    late = {**MESSAGE, "content": "half"}  # a tab that has not seen the end
    assert ada.put("/chats/chat-0001/messages/answer-1", json=late).status_code == 204
    assert message(ada)["content"] == TEXT
    edited = {**MESSAGE, "content": "edited", "is_running": False}
    assert ada.put("/chats/chat-0001/messages/answer-1", json=edited).status_code == 204
    assert message(ada)["content"] == "edited"


def test_what_is_stopped_stays(file_site):
    ada = file_site.person()
    words(file_site).gate.clear()
    ask(ada)
    until(lambda: message(ada)["content"])
    assert ada.delete("/answers/answer-1").status_code == 204
    assert ada.delete("/answers/answer-1").status_code == 204
    last = ended(ada)
    assert last["finish_reason"] == "cancelled"
    assert TEXT.startswith(last["content"])
    assert words(file_site).num_open == 0
    pairs = events(ada)
    assert (text_of(pairs), pairs[-3][1]["choices"][0]["finish_reason"]) == (last["content"], "cancelled")


def test_an_answer_goes_on_from_its_beginning(file_site):
    ada = file_site.person()
    ask(ada, beginning={"content": "0", "reasoning_content": "hm"})
    last = ended(ada)
    assert (last["content"], last["reasoning_content"]) == (f"0{TEXT}", "hm")
    first = events(ada)[0][1]["choices"][0]["delta"]
    assert (first["content"][0], first["reasoning_content"]) == ("0", "hm")


def test_without_a_chat_it_is_in_memory_alone(file_site, monkeypatch):
    ada = file_site.person()
    assert ada.post("/answers", json={**ANSWER, "chat": None}).status_code == 202
    assert text_of(events(ada)) == TEXT
    assert ada.get("/chats").json() == {"chats": []}
    all_answers = file_site.app.state.answers
    file_site.client.portal.call(all_answers._forget_old)
    assert text_of(events(ada)) == TEXT
    monkeypatch.setattr(module, "OVER_S", 0.0)
    file_site.client.portal.call(all_answers._forget_old)
    assert ada.get("/answers/answer-1").status_code == 404


def test_errors_are_told_and_kept(file_site):
    ada = file_site.person()
    words(file_site).error = RequestError("overloaded", "too much to do")
    ask(ada)
    last = ended(ada)
    assert (last["error"], last["finish_reason"], last["content"]) == ("too much to do", "error", "")
    assert next(data for _, data in events(ada))["error"]["message"] == "too much to do"
    words(file_site).error = ValueError("a secret prompt")
    assert ada.post("/answers", json={**ANSWER, "id": "answer-2", "chat": None}).status_code == 202
    (_, data), done = events(ada, answer_id="answer-2")
    assert "log" in data["error"]["message"]
    assert "secret" not in str(data)
    assert done[1] == "[DONE]"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"request": {**CHAT, "model": "none"}}, 404),
        ({"request": {**CHAT, "n": 2}}, 400),
        ({"request": {**CHAT, "tools": [{"type": "function"}]}}, 400),
        ({"request": {**CHAT, "messages": []}}, 400),
        ({"id": "short"}, 400),
        ({"chat": "chat-0002"}, 404),
        ({"id": "answer-2"}, 404),
        ({"id": "question"}, 404),
    ],
)
def test_what_cannot_be_answered_is_refused(file_site, fields, status):
    ada = file_site.person()
    question = {"id": "question", "role": "user"}
    ada.put("/chats/chat-0001", json={"id": "chat-0001", "messages": [MESSAGE, question]})
    assert ada.post("/answers", json={**ANSWER, **fields}).status_code == status
    assert ada.get("/answers").json() == {"answers": []}
    assert ada.post("/answers", json=ANSWER).status_code == 202
    assert text_of(events(ada)) == TEXT


def test_nobody_reads_or_stops_the_answers_of_others(site):
    ada, bob = site.person(), site.person("bob@example.com")
    words(site).gate.clear()
    ask(ada)
    bob.put("/chats/chat-0001", json={"id": "chat-0001"})
    assert bob.get("/answers/answer-1").status_code == 404
    assert bob.delete("/answers/answer-1").status_code == 404
    assert bob.get("/answers").json() == {"answers": []}
    assert bob.post("/answers", json=ANSWER).status_code == 404
    stranger = site.browser()
    assert [stranger.get("/answers").status_code, stranger.get("/answers/answer-1").status_code] == [401, 401]
    other_site = {"sec-fetch-site": "cross-site"}
    assert ada.post("/answers", json=ANSWER, headers=other_site).status_code == 403
    words(site).gate.set()
    assert ended(ada)["content"] == TEXT


def test_the_deletion_of_an_account_ends_its_answers(file_site):
    ada = file_site.person()
    words(file_site).gate.clear()
    ask(ada)
    until(lambda: words(file_site).num_open)
    assert ada.post("/account/delete", json={"password": "correct horse battery"}).status_code == 204
    until(lambda: not words(file_site).num_open)
    assert not file_site.app.state.answers._answers
