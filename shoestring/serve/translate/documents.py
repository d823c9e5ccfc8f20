"""Documents under translation: uploaded, translated beside other requests, and kept for an hour at most."""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Literal

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller, new_request_id
from shoestring.serve.translate.formats import DocumentText, format_of, read_document, write_document
from shoestring.serve.translate.request import DocumentFields
from shoestring.serve.translate.translation import Translation
from shoestring.serve.translate.translator import Group, Translator, sample_of

log = logging.getLogger(__name__)

MAX_BYTES = 10 << 20
"""Of a document."""
MAX_OPEN = 5
"""Documents of an account under translation at the same time."""
MAX_KEPT_BYTES = 256 << 20
"""Of all documents that wait to be fetched."""
KEEP_S = 3600.0
"""Seconds for which a document is kept."""

Status = Literal["queued", "translating", "done", "error"]


@dataclass(kw_only=True)
class Job:
    """One document."""

    id: str
    key: str = field(repr=False)
    """The secret of whoever uploaded it."""
    account_id: str
    name: str
    form: str
    begin_s: float
    status: Status = "queued"
    share: float = 0.0
    """Part of the text that is translated."""
    num_characters: int = 0
    result: bytes = b""
    error: str = ""
    task: "asyncio.Task[None] | None" = None

    def seconds_remaining(self, now_s: float) -> int:
        """About how long it still takes."""
        passed_s = now_s - self.begin_s
        return min(round(passed_s * (1 - self.share) / self.share), 3600) + 1 if self.share else 60


class Documents:
    """The documents of all callers. They live in this process: its end forgets them."""

    def __init__(self, translation: Translation, clock: Callable[[], float] = time.monotonic) -> None:
        self._translation, self._clock = translation, clock
        self._jobs: dict[str, Job] = {}

    async def upload(self, caller: Caller, fields: DocumentFields, name: str, data: bytes) -> Job:
        """Begin to translate a document. Raises RequestError for one that cannot be translated."""
        self._forget()
        name = fields.filename or name
        form = format_of(name)
        if fields.output_format not in (None, "", form):
            sentence = f"output_format = {fields.output_format!r} must be {form}: documents keep their format"
            raise RequestError("invalid", sentence, field="output_format")
        if len(data) > MAX_BYTES:
            raise RequestError(
                "too_large", f"the document is larger than {MAX_BYTES >> 20} MiB", field="file"
            )
        self._check_room(caller)
        task = await self._translation.task(caller, fields)
        own = replace(caller, request_id=new_request_id(), costs=[], ending=AsyncExitStack())
        translator = Translator(self._translation.chat(own, fields.model), task)
        document = await asyncio.to_thread(read_document, data, form)
        job = Job(
            id=secrets.token_hex(16).upper(),
            key=secrets.token_hex(32).upper(),
            account_id=caller.account_id,
            name=name,
            form=form,
            begin_s=self._clock(),
        )
        self._jobs[job.id] = job
        job.task = asyncio.create_task(self._run(job, own, translator, document))
        return job

    def find(self, caller: Caller, document_id: str, key: str) -> Job:
        """A document of the caller. Raises RequestError for a wrong id or key."""
        self._forget()
        job = self._jobs.get(document_id.upper())
        is_own = job is not None and job.account_id == caller.account_id
        if job is None or not is_own or not secrets.compare_digest(job.key, key.upper()):
            sentence = f"there is no such document; documents are kept for {KEEP_S / 3600:.0f} hour"
            raise RequestError("not_found", sentence)
        return job

    def fields(self, job: Job) -> dict[str, str | float]:
        """The state of a document, as the API shows it."""
        fields: dict[str, str | float] = {"document_id": job.id, "status": job.status}
        if job.status == "translating":
            fields["seconds_remaining"] = job.seconds_remaining(self._clock())
            fields["share"] = round(job.share, 3)  # not DeepL's: the page shows it
        if job.status == "done":
            fields["billed_characters"] = job.num_characters
        if job.status == "error":
            fields["error_message"] = fields["message"] = job.error
        return fields

    def take(self, job: Job) -> bytes:
        """The translated document, which is forgotten then. Raises RequestError when it is not ready."""
        if job.status == "error":
            raise RequestError("invalid", job.error)
        if job.status != "done":
            raise RequestError("overloaded", "the document is not translated yet", retry_after_s=1)
        del self._jobs[job.id]
        return job.result

    async def close(self) -> None:
        """End all translations."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _check_room(self, caller: Caller) -> None:
        own = [job for job in self._jobs.values() if job.account_id == caller.account_id]
        if sum(job.status in ("queued", "translating") for job in own) >= MAX_OPEN:
            sentence = f"{MAX_OPEN} documents of this account are under translation; wait for one to end"
            raise RequestError("rate_limit", sentence, retry_after_s=5)
        if sum(len(job.result) for job in self._jobs.values()) > MAX_KEPT_BYTES:
            raise RequestError("overloaded", "too many documents wait to be fetched", retry_after_s=60)

    def _forget(self) -> None:
        """Drop documents that were kept long enough."""
        end_s = self._clock() - KEEP_S
        for job in [job for job in self._jobs.values() if job.begin_s < end_s]:
            if job.task is not None:
                job.task.cancel()
            del self._jobs[job.id]

    async def _run(self, job: Job, caller: Caller, translator: Translator, document: DocumentText) -> None:
        """Translate a document to its end, or to an error that its owner reads."""
        try:
            async with caller.ending:
                await self._translate(job, translator, document)
                await self._translation.count(caller, job.num_characters, documents=1)
            job.status = "done"
        except RequestError as error:
            job.status, job.error = "error", str(error)
        except Exception as error:  # its text may hold the document's
            log.error("a document could not be translated: %s", type(error).__name__)
            job.status, job.error = "error", "the document could not be translated; the server's log says why"

    async def _translate(self, job: Job, translator: Translator, document: DocumentText) -> None:
        job.status = "translating"
        units = document.layout.units
        task = translator.task
        source = task.source or await translator.detect(sample_of(units))
        if source.base == task.target.base and source.code == task.target.code:
            raise RequestError("invalid", "Source and target language are equal.", field="target_lang")

        def progress(group: Group, texts: list[str], is_final: bool) -> None:
            job.share += len(group.units) / len(units) * is_final

        texts = await translator.translate(units, progress)
        job.result = await asyncio.to_thread(write_document, document, texts)
        job.num_characters = document.num_characters
