"""Two tabs on one chat lose nothing of each other, and what a chat counts is what it has."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from shoestring.serve.chats import writing
from shoestring.serve.chats.chats import delete_chats, erase_old, put_chat, restore_chat
from shoestring.serve.chats.messages import message_parts, put_messages
from shoestring.serve.chats.schema import ChatHead, Message
from shoestring.serve.chats.writing import Place
from shoestring.serve.storage.engines import writing_engine
from shoestring.serve.storage.migrate import transaction
from shoestring.serve.storage.tables import chats, messages
from tests.serve.sqlite import new_sqlite

IDS = ("message1", "message2", "message3", "message4")
MESSAGES = st.builds(
    lambda message_id, content, is_running: Message(
        id=message_id, role="assistant", content=content, is_running=is_running
    ),
    st.sampled_from(IDS),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5),
    st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(MESSAGES, max_size=3)),
        st.tuples(st.just("chat"), st.lists(MESSAGES, max_size=3)),
        st.tuples(st.just("begin"), st.sampled_from(IDS)),
        st.tuples(st.just("write"), st.sampled_from(IDS)),
        st.tuples(st.just("end"), st.sampled_from(IDS)),
        st.tuples(st.just("delete and restore"), st.none()),
    ),
    max_size=12,
)


class Expectation:
    """The texts of a chat's messages, and which of them are written now."""

    def __init__(self):
        self.texts, self.running, self.answered = {}, set(), set()

    def put(self, bodies):
        present = set(self.texts)
        last = {body.id: body for body in bodies}
        kept = {
            body.id for body in bodies if body.id in present and (body.is_running or body.id in self.running)
        }
        for message_id, body in last.items():
            if message_id not in kept:
                self.texts[message_id] = body.content
                self.answered.discard(message_id)

    def begin(self, message_id):
        can = message_id in self.texts and message_id not in self.running | self.answered
        if can:
            self.running.add(message_id)
        return can


def step(connection, expected, kind, value):
    """Do one thing to the chat and to what is expected of it."""
    place = Place("ada", "chat-0001", value if isinstance(value, str) else "")
    if kind == "put":
        put_messages(connection, "ada", "chat-0001", value)
        expected.put(value)
    elif kind == "chat":
        put_chat(connection, "ada", ChatHead(id="chat-0001"))
        for part in message_parts(value):
            put_messages(connection, "ada", "chat-0001", part)
            expected.put(part)
    elif kind == "begin" and value in expected.texts:
        assert writing.begin(connection, place, "srv_1") == expected.begin(value)
    elif kind in ("write", "end") and value in expected.running:
        expected.texts[value] += "."
        values = {"content": expected.texts[value], "reasoning_content": ""}
        if kind == "end":
            values |= {"server_id": None, "finish_reason": "stop"}
            expected.running.remove(value)
            expected.answered.add(value)
        assert writing.write(connection, place, "srv_1", values)
    elif kind == "delete and restore":
        delete_chats(connection, "ada", 1000)
        assert erase_old(connection, 1000) == 0
        restore_chat(connection, "ada", "chat-0001")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The URL of a database with empty tables."""
    return new_sqlite(tmp_path_factory.mktemp("chats") / "service.db")


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_what_anyone_kept_is_there(url, steps):
    with transaction(writing_engine(url)) as connection:
        connection.execute(chats.delete())
        expected = Expectation()
        put_chat(connection, "ada", ChatHead(id="chat-0001"))
        for kind, value in steps:
            step(connection, expected, kind, value)
            rows = connection.execute(select(messages)).all()
            assert {row.id: row.content for row in rows} == expected.texts
            assert {row.id for row in rows if row.server_id} == expected.running
            chat = connection.execute(select(chats)).one()
            total = connection.execute(select(func.coalesce(func.sum(messages.c.num_bytes), 0))).scalar()
            assert (chat.num_messages, chat.num_bytes) == (len(rows), total)
