"""Translation for callers: their glossaries and rules, the texts, and the count of characters."""

import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller
from shoestring.serve.service import Service
from shoestring.serve.translate import resources
from shoestring.serve.translate.chat import Chat
from shoestring.serve.translate.languages import Language, source_language, target_language
from shoestring.serve.translate.markup import TagRules, read_markup
from shoestring.serve.translate.plain import read_plain
from shoestring.serve.translate.request import (
    MAX_REQUEST,
    RephraseBody,
    TranslateBody,
    TranslationFields,
)
from shoestring.serve.translate.task import STYLES, Task
from shoestring.serve.translate.translator import Progress, Translator, gathered, sample_of
from shoestring.serve.translate.usage import add_usage

log = logging.getLogger(__name__)

Result = TypeVar("Result")
KEEP_FORM = "Keep capitals at the beginning and punctuation at the end as they are."


class Store(Protocol):
    """The database with what accounts keep."""

    async def read(self, work: Callable[..., Result], *arguments: Any) -> Result: ...

    async def write(self, work: Callable[..., Result], *arguments: Any) -> Result: ...


@dataclass(frozen=True, kw_only=True)
class Translated:
    """A text in the other language."""

    text: str
    source: Language
    num_characters: int
    """Characters of the text before."""


class Translation:
    """The translations of a service. Use it on one event loop."""

    def __init__(self, service: Service, store: Store | None, model: str | None = None) -> None:
        """`model` translates; without one, the service's first model. Without a `store` nothing is kept."""
        self._service, self._store, self._model = service, store, model

    @property
    def store(self) -> Store:
        """The database. Raises RequestError when nothing is kept."""
        if self._store is None:
            raise RequestError("not_found", "this service keeps no glossaries, style rules or counts")
        return self._store

    @property
    def model(self) -> str:
        """The name of the model that translates."""
        return self._model or next(iter(self._service.backends))

    def chat(self, caller: Caller, model: str | None = None) -> Chat:
        """The model, for one request. Raises RequestError for a model that is not served."""
        return Chat(self._service, caller, model or self.model)

    async def task(self, caller: Caller, body: TranslationFields) -> Task:
        """The wish of a request. Raises RequestError naming the field that is wrong."""
        target = target_language(body.target_lang)
        source = source_language(body.source_lang) if body.source_lang else None
        formality = body.formality.removeprefix("prefer_")
        if formality != "default" and not target.has_formality:
            if not body.formality.startswith("prefer_"):
                sentence = f"Target language {target.code} does not support formality"
                raise RequestError("invalid", sentence, field="formality")
            formality = "default"
        if body.translation_memory_id is not None:
            sentence = "there are no translation memories here; use a glossary"
            raise RequestError("invalid", sentence, field="translation_memory_id")
        return Task(
            target=target,
            source=source,
            formality=formality,
            glossary=await self._glossary(caller, body.glossary_id, source, target),
            context=body.context,
            instructions=(*body.custom_instructions, *await self._rules(caller, body.style_id)),
        )

    async def translate(
        self, caller: Caller, body: TranslateBody, chat: Chat, progress: Progress | None = None
    ) -> list[Translated]:
        """All texts of a request. Raises RequestError."""
        _check_length(body.text)
        task = await self.task(caller, body)
        if body.preserve_formatting:
            task = replace(task, instructions=(*task.instructions, KEEP_FORM))
        works = (self._text(chat, task, text, body, progress) for text in body.text)
        results = await gathered(works)
        await self.count(caller, sum(result.num_characters for result in results))
        return results

    async def rephrase(self, caller: Caller, body: RephraseBody) -> list[tuple[Translated, Language]]:
        """All texts of a request in better words, each with its language now. Raises RequestError."""
        _check_length(body.text)
        wishes = [wish for wish in (body.writing_style, body.tone) if wish and wish != "default"]
        for wish in wishes:
            if wish.removeprefix("prefer_") not in STYLES:
                names = ", ".join(STYLES)
                raise RequestError("invalid", f"{wish[:40]!r} is no style or tone; there are {names}")
        instructions = tuple(STYLES[wish.removeprefix("prefer_")] for wish in wishes)
        target = target_language(body.target_lang) if body.target_lang else None
        chat = self.chat(caller)

        async def improve(text: str) -> tuple[Translated, Language]:
            source = await Translator(chat, Task(target=source_language("EN"))).detect(text)
            own = target if target is not None and target.base == source.base else source
            task = Task(target=own, source=source, is_rephrasing=True, instructions=instructions)
            layout = read_plain(text)
            texts = await Translator(chat, task).translate(layout.units)
            return Translated(text=layout.render(texts), source=source, num_characters=len(text)), own

        results = await gathered(improve(text) for text in body.text)
        await self.count(caller, sum(len(text) for text in body.text))
        return results

    async def count(self, caller: Caller, characters: int, documents: int = 0) -> None:
        """Count what was translated; a database that is gone for a moment does not end the request."""
        if self._store is None:
            return
        try:
            await self._store.write(add_usage, caller.account_id, characters, documents)
        except RequestError:
            log.warning("%d translated characters could not be counted", characters)

    async def _text(
        self, chat: Chat, task: Task, text: str, body: TranslateBody, progress: Progress | None
    ) -> Translated:
        if body.tag_handling is None:
            layout = read_plain(text, joins_lines=body.split_sentences in ("0", "nonewlines"))
            return await self._layout(chat, task, text, layout, progress)
        rules = TagRules(
            kind=body.tag_handling,
            finds_outline=body.outline_detection,
            splitting=body.splitting_tags,
            non_splitting=body.non_splitting_tags,
            verbatim=body.ignore_tags,
        )
        return await self._layout(chat, task, text, read_markup(text, rules), progress)

    async def _layout(
        self, chat: Chat, task: Task, text: str, layout: Any, progress: Progress | None
    ) -> Translated:
        """A text by its units, whose language is found out meanwhile."""
        translator = Translator(chat, task)
        source = task.source
        works: list[Coroutine[Any, Any, Any]] = [translator.translate(layout.units, progress)]
        if source is None:
            works.append(translator.detect(sample_of(layout.units) or text))
        texts, *languages = await gathered(works)
        source = source or languages[0]
        return Translated(text=layout.render(texts), source=source, num_characters=len(text))

    async def _glossary(
        self, caller: Caller, glossary_id: str | None, source: Language | None, target: Language
    ) -> Mapping[str, str]:
        """The entries of a glossary for two languages. Raises RequestError."""
        if glossary_id is None:
            return {}
        if source is None:
            raise RequestError("invalid", "a glossary needs source_lang", field="source_lang")
        glossary = await self.store.read(resources.find, caller.account_id, "glossary", glossary_id)
        for dictionary in glossary["dictionaries"]:
            if (dictionary["source_lang"], dictionary["target_lang"]) == (source.base, target.base):
                entries: Mapping[str, str] = dictionary["entries"]
                return entries
        sentence = f"the glossary has no dictionary from {source.base} to {target.base}"
        raise RequestError("invalid", sentence, field="glossary_id")

    async def _rules(self, caller: Caller, style_id: str | None) -> Sequence[str]:
        """The sentences of a style rule. Raises RequestError."""
        if style_id is None:
            return ()
        style = await self.store.read(resources.find, caller.account_id, "style", style_id)
        rules = [
            f"{name.replace('_', ' ')}: {value.replace('_', ' ')}."
            for group in style["configured_rules"].values()
            for name, value in group.items()
        ]
        return [*rules, *(each["prompt"] for each in style["custom_instructions"])]


def _check_length(texts: Sequence[str]) -> None:
    if sum(len(text) for text in texts) > MAX_REQUEST:
        sentence = f"the texts have more than {MAX_REQUEST} characters; send several requests, or a document"
        raise RequestError("too_large", sentence, field="text")
