import re

import pytest

from shoestring.serve.backends.errors import RequestError

BEAM = {"text": ["a proton beam", "proton beam"], "target_lang": "DE"}


def test_texts_are_translated_from_json_or_a_form(deepl):
    body = {**BEAM, "show_billed_characters": True, "model_type": "prefer_quality_optimized", "debug": "1"}
    whole = deepl.post("/v2/translate", json=body)
    assert whole.status_code == 200, whole.text
    assert whole.json()["translations"][0] == {
        "text": "a Protonenstrahl",
        "detected_source_language": "EN",
        "billed_characters": 13,
        "model_type_used": "quality_optimized",
    }
    assert float(whole.headers["x-request-cost"].split()[0]) == 0
    form = deepl.post("/v2/translate", data={**BEAM, "source_lang": "en"})
    assert [each["text"] for each in form.json()["translations"]] == ["a Protonenstrahl", "Protonenstrahl"]
    usage = deepl.get("/v2/usage").json()
    assert (usage["character_count"], usage["document_count"]) == (48, 0)
    assert usage["character_limit"] > usage["character_count"]


def test_tags_are_kept(deepl):
    text = "<p>A <b>proton beam</b> &amp; <x>proton beam</x></p>"
    fields = {"tag_handling": "xml", "ignore_tags": "x,y", "target_lang": "DE", "text": text}
    reply = deepl.post("/v2/translate", data=fields).json()["translations"][0]
    assert reply["text"] == "<p>A <b>Protonenstrahl</b> &amp; <x>proton beam</x></p>"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"target_lang": "XX"}, "target_lang.*not supported"),
        ({"source_lang": "XX"}, "source_lang.*not supported"),
        ({"target_lang": None}, "target_lang"),
        ({"text": []}, "text"),
        ({"text": ["x"] * 51}, "text"),
        ({"formality": "rude"}, "formality"),
        ({"target_lang": "EN-US", "formality": "more"}, "Target language EN-US does not support formality"),
        ({"split_sentences": "2"}, "split_sentences"),
        ({"glossary_id": "x"}, "source_lang"),
        ({"glossary_id": "x", "source_lang": "EN"}, "Invalid glossary id"),
        ({"translation_memory_id": "x"}, "no translation memories"),
        ({"custom_instructions": ["x"] * 11}, "custom_instructions"),
    ],
)
def test_a_wrong_field_is_named(deepl, fields, words):
    reply = deepl.post("/v2/translate", json={**BEAM, **fields})
    assert reply.status_code == 400
    assert re.search(words, reply.json()["message"])


@pytest.mark.parametrize("data", [b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_body_of_the_wrong_form_is_a_400(deepl, data):
    reply = deepl.post("/v2/translate", content=data, headers={"content-type": "application/json"})
    assert (reply.status_code, set(reply.json())) == (400, {"message"})


def test_errors_have_deepls_statuses(deepl, phrase_site, book):
    wrong = {"Authorization": "DeepL-Auth-Key invalid"}
    assert deepl.post("/v2/translate", json=BEAM, headers=wrong).status_code == 403
    assert phrase_site.browser().get("/v2/usage").status_code == 403
    long = {**BEAM, "text": ["x" * (128 << 10), "y"]}
    assert deepl.post("/v2/translate", json=long).status_code == 413
    for kind, status in (("balance", 456), ("rate_limit", 429), ("overloaded", 503)):

        async def prepare(request, kind=kind):
            raise RequestError(kind, "no")

        book.prepare = prepare
        reply = deepl.post("/v2/translate", json=BEAM)
        assert (reply.status_code, reply.json()) == (status, {"message": "no"})


def test_wishes_reach_the_model(deepl, book):
    more = {"formality": "prefer_more", "context": "Of physics.", "custom_instructions": ["Be brief."]}
    assert deepl.post("/v2/translate", json={**BEAM, **more, "source_lang": "EN"}).status_code == 200
    words = book.requests[0].messages[0]["content"]
    assert all(part in words for part in ("formally", "Of physics.", "Be brief."))


def test_texts_get_better_words(deepl, book):
    body = {"text": ["proton beam"], "target_lang": "EN-GB", "writing_style": "prefer_business"}
    (improvement,) = deepl.post("/v2/write/rephrase", json=body).json()["improvements"]
    assert improvement == {
        "text": "proton beam",
        "detected_source_language": "EN",
        "target_language": "EN-GB",
    }
    assert "business" in book.requests[-1].messages[0]["content"]
    assert deepl.post("/v2/write/rephrase", json={**body, "tone": "odd"}).status_code == 400


def test_languages_are_listed(deepl):
    sources = deepl.get("/v2/languages").json()
    assert {"language": "EN", "name": "English"} in sources
    for reply in (
        deepl.get("/v2/languages?type=target"),
        deepl.request("GET", "/v2/languages", data={"type": "target"}),
    ):
        assert {"language": "DE", "name": "German", "supports_formality": True} in reply.json()
    assert deepl.get("/v2/languages?type=x").status_code == 400
