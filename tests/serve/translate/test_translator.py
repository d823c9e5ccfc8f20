import asyncio
import re

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import LOCAL
from shoestring.serve.service import Service
from shoestring.serve.translate.chat import Chat
from shoestring.serve.translate.languages import source_language, target_language
from shoestring.serve.translate.task import Task
from shoestring.serve.translate.translator import Translator, sample_of
from shoestring.serve.translate.units import Unit, is_whole
from tests.serve.phrasebook import Phrasebook

MARKED = Unit("Two <t1>bold</t1> words<t2/>", ("<t1>", "</t1>", "<t2/>"))


def new_translator(spoil=lambda text, turns: text, max_model_len=8000, **fields):
    book = Phrasebook(max_model_len)
    book.spoil = spoil
    task = Task(target=target_language("DE"), **fields)
    return Translator(Chat(Service({"book": book}), LOCAL, "book"), task), book


def translated(units, spoil=lambda text, turns: text, **fields):
    translator, book = new_translator(spoil, **fields)
    return asyncio.run(translator.translate(units)), book.requests


def test_lines_go_to_the_model_together():
    texts, requests = translated([Unit("a proton beam"), Unit("two"), MARKED])
    assert texts == ["a Protonenstrahl", "two", MARKED.text]
    (request,) = requests
    assert request.sampling.temperature == 0
    assert request.thinking is False
    assert request.messages[1]["content"].count("\n") == 2


def test_a_reply_that_loses_a_line_is_asked_for_line_by_line():
    texts, requests = translated([Unit("one"), Unit("two")], lambda text, turns: text.replace("\n", " "))
    assert texts == ["one", "two"]
    assert len(requests) == 3


def test_a_reply_that_loses_a_mark_is_asked_for_again():
    def spoil(text, turns):
        return text if turns else text.replace("</t1>", "")

    texts, requests = translated([MARKED], spoil)
    assert texts == [MARKED.text]
    assert "Use each of these once: <t1> </t1> <t2/>" in requests[1].messages[-1]["content"]


@pytest.mark.parametrize(
    "spoil", [lambda text, _: re.sub("<[^>]*>", "", text), lambda text, _: text + "<t1>"]
)
def test_marks_that_are_always_lost_are_kept_all_the_same(spoil):
    (text,), _ = translated([MARKED], spoil)
    assert is_whole(text, MARKED.marks)
    assert text.startswith("Two")


def test_a_glossary_is_checked():
    glossary = {"artist": "Maler"}
    texts, requests = translated([Unit("the artist"), Unit("artist")], glossary=glossary)
    assert texts == ["the artist", "Maler"]
    assert "artist = Maler" in requests[0].messages[0]["content"]
    assert "artist = Maler" in requests[1].messages[-1]["content"]
    assert len(requests) == 2


def test_a_long_line_is_cut_and_put_together():
    sentence = "This is one of many sentences. "
    text = (sentence * 200).strip()
    (result,), requests = translated([Unit(text)])
    assert result == text
    assert len(requests) >= len(text) // 2000


def test_the_language_is_a_choice_of_codes():
    translator, book = new_translator()
    assert asyncio.run(translator.detect("Protonenstrahl")).code == "DE"
    assert "DE" in book.requests[0].sampling.structured_outputs.choice
    for reply in ("**fr**", "The language is French.", "FR-CA"):
        book._answer = lambda request, reply=reply: reply
        assert asyncio.run(translator.detect("un mot")).code == "FR"
    book._answer = lambda request: "Klingon"
    with pytest.raises(RequestError, match="name it as source_lang"):
        asyncio.run(translator.detect("nuqneH"))


def test_a_model_that_says_nothing_is_an_error():
    with pytest.raises(RequestError, match="gave no answer"):
        translated([Unit("one")], lambda text, turns: " ")


def test_progress_shows_text_as_it_comes():
    seen = []
    translator, _ = new_translator()
    work = translator.translate(
        [Unit("one two")], lambda group, texts, is_final: seen.append((*texts, is_final))
    )
    assert asyncio.run(work) == ["one two"]
    assert seen == [("one", False), ("one two", False), ("one two", True)]


def test_a_sample_is_text_without_marks():
    assert sample_of([MARKED]) == "Two  bold  words"
    assert source_language("EN").name == "English"
