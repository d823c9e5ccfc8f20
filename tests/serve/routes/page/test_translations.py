import pytest
from starlette.testclient import TestClient

from shoestring.serve.app import build_app
from shoestring.serve.service import Service
from tests.serve.phrasebook import Phrasebook

BODY = {"text": "# A proton beam\n\n- proton beam\n", "target_lang": "DE"}


@pytest.fixture(scope="module")
def phrases():
    with TestClient(build_app(Service({"phrasebook": Phrasebook(400)}))) as client:
        yield client


def shown(events):
    """The text that the page shows at the end, and all other fields."""
    pieces, fields = {}, {}
    for event in events[:-1]:
        fields |= event
        if "piece" in event:
            pieces[event["piece"]] = event["text"]
    assert events[-1] == "[DONE]"
    return "".join(pieces[number] for number in range(fields["pieces"])), fields


def test_a_text_grows_in_pieces(phrases, events):
    reply = phrases.post("/translations", json=BODY)
    assert reply.headers["content-type"].startswith("text/event-stream")
    text, fields = shown(events(reply.text))
    assert text == "# A Protonenstrahl\n\n- Protonenstrahl\n"
    assert (fields["source"], fields["model"], fields["characters"]) == ("EN", "phrasebook", 31)
    assert fields["pieces"] == 1


def test_a_long_text_has_several_pieces(phrases, events):
    source = "```\ncode\n```\n" + "A proton beam is here.\n\n" * 40 + "1 2 3\n"
    text, fields = shown(events(phrases.post("/translations", json={**BODY, "text": source}).text))
    assert text == source.replace("proton beam", "Protonenstrahl")
    assert fields["pieces"] > 5


def test_a_text_without_words_stays(phrases, events):
    assert shown(events(phrases.post("/translations", json={**BODY, "text": "1 2\n"}).text))[0] == "1 2\n"


def test_an_error_before_the_first_piece_has_its_status(phrases, events):
    for wrong, status in (
        ({"target_lang": "XX"}, 400),
        ({"model": "none"}, 404),
        ({"text": ""}, 400),
        ({"text": "x" * (1 << 18)}, 413),
    ):
        reply = phrases.post("/translations", json={**BODY, **wrong})
        assert reply.status_code == status
        assert reply.json()["error"]["message"]


def test_an_error_on_the_way_is_an_event(events):
    book = Phrasebook()
    book.spoil = lambda text, turns: ""
    with TestClient(build_app(Service({"phrasebook": book}))) as client:
        (_, error, end) = events(client.post("/translations", json={**BODY, "source_lang": "EN"}).text)
    assert "gave no answer" in error["error"]["message"]
    assert end == "[DONE]"


def test_the_page_is_told_what_there_is(phrases):
    offer = phrases.get("/translations").json()
    assert offer["model"] == "phrasebook"
    assert {"code": "DE", "has_formality": True} in offer["targets"]
    assert "docx" in offer["formats"]
