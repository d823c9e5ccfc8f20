"""What the routes of chats give is what the OpenAPI document says, and what no database keeps is replaced."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.serve.chats import schema
from shoestring.serve.chats.schema import storable
from tests.serve.asking import ANSWER, ask, ended

FORMS = {
    "/chats": schema.ChatList,
    "/chats/chat-0001": schema.Chat,
    "/answers": schema.AnswerList,
    "/shares": schema.ShareList,
    "/memory": schema.Memory,
}


@pytest.mark.usefixtures("quick_answers")
def test_replies_have_the_declared_forms(file_site):
    ada = file_site.person()
    ask(ada)
    ended(ada)
    file_site.app.state.service.backends["words"].gate.clear()
    assert ada.post("/answers", json={**ANSWER, "id": "answer-2", "chat": None}).status_code == 202
    link = ada.post("/chats/chat-0001/share", json={"leaf": "answer-1"}).json()
    schema.ShareLink.model_validate(link)
    ada.put("/memory", json={"is_on": True})
    schema.Fact.model_validate(ada.post("/memory/facts", json={"text": "a"}).json())
    for path, form in FORMS.items():
        body = ada.get(path).json()
        assert form.model_validate(body)
        assert any(body.values()), path
    schema.ShareContent.model_validate(ada.get(f"/shares/{link['token']}/content").json())
    schema.AttachmentText.model_validate(ada.post("/attachments?name=a", content=b"a").json())
    file_site.app.state.service.backends["words"].gate.set()


@given(st.text() | st.lists(st.sampled_from(["\ud83d", "\ude00", "\0", "a"])).map("".join))
def test_any_text_can_be_stored(text):
    stored = storable(json.loads(json.dumps(text)))
    assert "\0" not in stored
    assert stored.encode().decode() == stored
    if "\0" not in text and not any("\ud800" <= each <= "\udfff" for each in text):
        assert stored == text
