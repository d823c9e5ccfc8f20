import asyncio

import pytest
from starlette.testclient import TestClient

from shoestring.serve.app import build_app
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import LOCAL
from shoestring.serve.ledger.meter import Meter
from shoestring.serve.ledger.operations import add_funds
from shoestring.serve.ledger.prices import NANOS
from shoestring.serve.service import Service
from shoestring.serve.storage.database import Database
from shoestring.serve.storage.engines import writing_engine
from shoestring.serve.storage.tables import operations
from shoestring.serve.translate.request import TranslateBody, TranslationFields
from shoestring.serve.translate.translation import Translation
from tests.serve.phrasebook import Phrasebook
from tests.serve.sqlite import new_sqlite
from tests.serve.words import PRICES


def new_translation(**fields):
    service = Service({"first": Phrasebook(), "second": Phrasebook()})
    return Translation(service, None, **fields)


def test_the_model_is_the_first_or_the_one_that_is_set():
    assert new_translation().model == "first"
    assert new_translation(model="second").chat(LOCAL).model == "second"


def test_without_a_database_texts_are_translated_and_nothing_is_kept():
    translation = new_translation()
    body = TranslateBody(text=["proton beam"], target_lang="DE")
    (result,) = asyncio.run(translation.translate(LOCAL, body, translation.chat(LOCAL)))
    assert (result.text, result.source.code) == ("Protonenstrahl", "EN")
    with pytest.raises(RequestError, match="keeps no glossaries"):
        _ = translation.store


def test_a_wish_for_formality_is_dropped_where_it_may_be():
    task = new_translation().task(LOCAL, TranslationFields(target_lang="TR", formality="prefer_more"))
    assert asyncio.run(task).formality == "default"


def test_every_reply_is_paid_for(tmp_path):
    url = new_sqlite(tmp_path / "service.db")
    engine = writing_engine(url)
    with engine.begin() as connection:
        add_funds(connection, "funds", "local", "top_up", 10 * NANOS, 0)
    service = Service({"phrasebook": Phrasebook()}, meter=Meter(Database(url), PRICES))
    with TestClient(build_app(service)) as client:
        reply = client.post("/v2/translate", json={"text": ["one"] * 20, "target_lang": "DE"})
        assert reply.status_code == 200
        assert float(reply.headers["x-request-cost"].split()[0]) > 0
    with engine.begin() as connection:
        rows = connection.execute(operations.select().where(operations.c.kind != "top_up")).all()
    engine.dispose()
    assert len(rows) == 40  # a translation and a language each
    assert all(row.ended_s is not None and row.charge > 0 for row in rows)


def test_without_money_it_is_deepls_456(tmp_path):
    url = new_sqlite(tmp_path / "service.db")
    service = Service({"phrasebook": Phrasebook()}, meter=Meter(Database(url), PRICES))
    with TestClient(build_app(service)) as client:
        reply = client.post("/v2/translate", json={"text": ["one"], "target_lang": "DE"})
    assert reply.status_code == 456
