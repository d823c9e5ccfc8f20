"""A plain text that is translated while somebody looks on: its pieces as they grow."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from typing import Any

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller
from shoestring.serve.translate.plain import PlainLayout, read_plain
from shoestring.serve.translate.request import MAX_REQUEST, TranslationFields
from shoestring.serve.translate.translation import Translation
from shoestring.serve.translate.translator import Group, Translator, sample_of
from shoestring.serve.translate.units import Unit

Event = dict[str, Any]


class Live:
    """One translation.

    Its events are {"model", "pieces"}, then {"piece", "text", "is_final"} and {"source"}, and {"characters"}.
    """

    def __init__(self, translation: Translation, caller: Caller, text: str) -> None:
        self._translation, self._caller, self._text = translation, caller, text
        self._layout = read_plain(text)
        self._fresh: dict[int | str, Event] = {}
        """The last event of each piece that was not read yet: a slow reader gets fewer."""
        self._wake = asyncio.Event()

    async def events(self, body: TranslationFields) -> AsyncGenerator[Event]:
        """The events as they come. Raises RequestError, before the first one too."""
        if len(self._text) > MAX_REQUEST:
            raise RequestError("too_large", f"the text has more than {MAX_REQUEST} characters; send a file")
        chat = self._translation.chat(self._caller, body.model)
        translator = Translator(chat, await self._translation.task(self._caller, body))
        pieces = self._pieces([len(group.units) for group in translator.groups(self._layout.units)])
        work = asyncio.create_task(self._work(translator, pieces, is_known=bool(body.source_lang)))
        work.add_done_callback(lambda task: self._wake.set())
        try:
            yield {"model": chat.model, "pieces": len(pieces)}
            is_open = True
            while is_open:
                is_open = not work.done()
                fresh, self._fresh = self._fresh, {}
                for event in fresh.values():
                    yield event
                if is_open:
                    await self._wake.wait()
                    self._wake.clear()
            await work
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await work
        characters = len(self._text)
        await self._translation.count(self._caller, characters)
        yield {"characters": characters}

    async def _work(self, translator: Translator, pieces: list[PlainLayout], *, is_known: bool) -> None:
        numbers: dict[int, int] = {}
        first = 0
        for number, piece in enumerate(pieces):
            numbers[first] = number
            first += len(piece.units)

        def progress(group: Group, texts: list[str], is_final: bool) -> None:
            self._show(numbers[group.first], pieces[numbers[group.first]].render(texts), is_final=is_final)

        for number, piece in enumerate(pieces):
            if not piece.units:
                self._show(number, piece.render([]), is_final=True)
        detecting = None if is_known else asyncio.create_task(self._detect(translator))
        try:
            await translator.translate(self._layout.units, progress)
            if detecting is not None:
                await detecting
        finally:
            if detecting is not None:
                detecting.cancel()

    async def _detect(self, translator: Translator) -> None:
        """Tell the language of the text; it is shown alone, so a model that cannot name it is no error."""
        with suppress(RequestError):
            language = await translator.detect(sample_of(self._layout.units) or self._text)
            self._put("source", {"source": language.code})

    def _show(self, piece: int, text: str, *, is_final: bool) -> None:
        self._put(piece, {"piece": piece, "text": text, "is_final": is_final})

    def _put(self, name: int | str, event: Event) -> None:
        self._fresh[name] = event
        self._wake.set()

    def _pieces(self, sizes: list[int]) -> list[PlainLayout]:
        """The text in pieces of so many units; what stands before a unit goes with it."""
        items = self._layout.items
        pieces, begin, number = [], 0, 0
        for size in sizes[:-1]:
            end = begin
            while number < size:
                number += isinstance(items[end], Unit)
                end += 1
            pieces.append(PlainLayout(items[begin:end]))
            begin, number = end, 0
        return [*pieces, PlainLayout(items[begin:])]
