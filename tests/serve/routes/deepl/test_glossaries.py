import pytest

from shoestring.serve.storage.tables import translation_resources as table
from tests.serve.routes.deepl.conftest import keyed
from tests.serve.site import PASSWORD

NOBODYS = "96ab91fd-e715-41a1-adeb-5d701f84a483"
ENTRIES = "proton\tProton\nbeam\tStrahl"
SINGLE = {"name": "g", "source_lang": "EN", "target_lang": "de"}
SINGLE |= {"entries": ENTRIES, "entries_format": "tsv"}


def dictionary(source, target, entries):
    return {"source_lang": source, "target_lang": target, "entries": entries, "entries_format": "tsv"}


def test_a_glossary_of_one_pair(deepl, stranger):
    glossary = deepl.post("/v2/glossaries", json=SINGLE)
    assert glossary.status_code == 201
    info = glossary.json()
    assert (info["source_lang"], info["target_lang"], info["entry_count"]) == ("en", "de", 2)
    path = f"/v2/glossaries/{info['glossary_id']}"
    assert deepl.get(path).json() == info
    assert deepl.get("/v2/glossaries").json() == {"glossaries": [info]}
    assert deepl.get(f"{path}/entries").text == ENTRIES
    for client in (stranger,):
        assert client.get(path).status_code == client.delete(path).status_code == 404
        assert client.get("/v2/glossaries").json() == {"glossaries": []}
    assert deepl.delete(path).status_code == 204
    assert deepl.get(path).status_code == 404


def test_a_glossary_is_used(deepl, book):
    ids = deepl.post("/v2/glossaries", json=SINGLE).json()["glossary_id"]
    body = {"text": ["Beam", "the beam"], "source_lang": "EN", "target_lang": "DE", "glossary_id": ids}
    texts = [each["text"] for each in deepl.post("/v2/translate", json=body).json()["translations"]]
    assert texts == ["Strahl", "the beam"]
    assert "beam = Strahl" in book.requests[0].messages[0]["content"]
    other = deepl.post("/v2/translate", json={**body, "target_lang": "FR"})
    assert "no dictionary from EN to FR" in other.json()["message"]


def test_a_glossary_of_several_pairs(deepl):
    body = {"name": "m", "dictionaries": [dictionary("EN", "DE", ENTRIES), dictionary("DE", "EN", "Ja\tYes")]}
    info = deepl.post("/v3/glossaries", json=body).json()
    path = f"/v3/glossaries/{info['glossary_id']}"
    assert [each["entry_count"] for each in info["dictionaries"]] == [2, 1]
    assert deepl.get("/v3/glossaries").json()["glossaries"] == [info]
    assert deepl.get(path.replace("v3", "v2")).status_code == 404
    new = {"name": "n", "dictionaries": [dictionary("EN", "DE", "beam\tBalken\nnew\tneu")]}
    changed = deepl.patch(path, json=new).json()
    assert (changed["name"], changed["dictionaries"][0]["entry_count"]) == ("n", 3)
    pair = {"source_lang": "en", "target_lang": "de"}
    (entries,) = deepl.get(f"{path}/entries", params=pair).json()["dictionaries"]
    assert entries["entries"] == "proton\tProton\nbeam\tBalken\nnew\tneu"
    replaced = deepl.put(f"{path}/dictionaries", json=dictionary("EN", "DE", "a\tb"))
    assert replaced.json() == {**pair, "entry_count": 1}
    assert deepl.delete(f"{path}/dictionaries", params=pair).status_code == 204
    assert deepl.get(f"{path}/entries", params=pair).status_code == 404
    assert len(deepl.get(path).json()["dictionaries"]) == 1
    assert deepl.delete(path).status_code == 204


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_ids_that_are_wrong_and_ids_of_nobody(deepl, version):
    assert deepl.get(f"/{version}/glossaries/nonsense").status_code == 400
    assert deepl.get(f"/{version}/glossaries/{NOBODYS}").status_code == 404
    assert deepl.delete(f"/{version}/glossaries/{NOBODYS}").status_code == 404


def test_all_pairs_are_supported(deepl):
    pairs = deepl.get("/v2/glossary-language-pairs").json()["supported_languages"]
    assert {"source_lang": "de", "target_lang": "en"} in pairs
    for wrong in ({"target_lang": "XX"}, {"target_lang": "EN"}, {"entries": ""}, {"name": ""}):
        assert deepl.post("/v2/glossaries", json={**SINGLE, **wrong}).status_code == 400
    assert deepl.post("/v3/glossaries", json={"name": "x", "dictionaries": [3]}).status_code == 400


def test_an_account_s_glossaries_are_in_its_data_and_go_with_it(phrase_site):
    browser = phrase_site.person()
    client = keyed(phrase_site, browser)
    assert client.post("/v2/glossaries", json=SINGLE).status_code == 201
    assert ENTRIES.split("\t")[0] in browser.get("/account/export").text
    assert browser.post("/account/delete", json={"password": PASSWORD}).status_code == 204
    database = phrase_site.hosting.accounts.database
    rows = phrase_site.do(database.read, lambda connection: connection.execute(table.select()).all())
    assert rows == []
