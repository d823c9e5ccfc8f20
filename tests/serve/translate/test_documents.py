import asyncio

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import LOCAL
from shoestring.serve.service import Service
from shoestring.serve.translate import documents as module
from shoestring.serve.translate.documents import Documents
from shoestring.serve.translate.request import DocumentFields
from shoestring.serve.translate.translation import Translation
from tests.serve.phrasebook import Phrasebook

FIELDS = DocumentFields(source_lang="EN", target_lang="DE")


def run(work, clock=lambda: 0.0):
    """The result of work with documents and their model."""
    book = Phrasebook()
    documents = Documents(Translation(Service({"phrasebook": book}), None), clock)

    async def main():
        try:
            return await work(documents, book)
        finally:
            await documents.close()

    return asyncio.run(main())


def test_documents_are_forgotten_after_an_hour():
    now_s = [0.0]

    async def work(documents, book):
        job = await documents.upload(LOCAL, FIELDS, "a.txt", b"proton beam")
        await job.task
        assert documents.find(LOCAL, job.id.lower(), job.key) is job
        now_s[0] = module.KEEP_S + 1
        with pytest.raises(RequestError, match="no such document"):
            documents.find(LOCAL, job.id, job.key)

    run(work, lambda: now_s[0])


def test_an_account_has_few_at_a_time(monkeypatch):
    monkeypatch.setattr(module, "MAX_OPEN", 1)

    async def work(documents, book):
        job = await documents.upload(LOCAL, FIELDS, "a.txt", b"x y")
        with pytest.raises(RequestError, match="1 documents"):
            await documents.upload(LOCAL, FIELDS, "a.txt", b"x y")
        with pytest.raises(RequestError, match="not translated yet"):
            documents.take(job)
        await job.task
        assert documents.take(job) == b"x y"

    run(work)


def test_a_failure_is_told_without_the_text(caplog):
    async def work(documents, book):
        def fail(text, turns):
            raise ValueError(text)

        book.spoil = fail
        job = await documents.upload(LOCAL, FIELDS, "a.txt", b"secret words")
        await job.task
        return documents.fields(job)

    state = run(work)
    assert state["status"] == "error"
    assert "secret" not in caplog.text + state["error_message"]
    assert "ValueError" in caplog.text


def test_the_state_says_how_far_it_is():
    async def work(documents, book):
        job = await documents.upload(LOCAL, FIELDS, "a.txt", b"x y")
        assert documents.fields(job)["status"] == "queued"
        job.status, job.share, job.begin_s = "translating", 0.5, -10.0
        assert documents.fields(job)["seconds_remaining"] == 11
        await job.task
        assert documents.fields(job)["billed_characters"] == 3

    run(work)
