"""The translator: units go to the model in groups of lines, and what comes back is checked.

A reply that loses a line or a mark is asked for again, line by line; if marks are still missing, the text
between them is translated piece by piece, so that no tag is ever lost.
"""

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate.chat import Chat, Watcher
from shoestring.serve.translate.languages import SOURCES, Language, base_code
from shoestring.serve.translate.task import Task, detection, instruction
from shoestring.serve.translate.units import Unit, cut, is_whole, split

DETECTION_CHARACTERS = 500
"""The beginning of a text that shows its language."""


@dataclass(frozen=True)
class Group:
    """Units that are translated in one reply; `first` is the number of the first one."""

    first: int
    units: Sequence[Unit]


Result = TypeVar("Result")
Progress = Callable[[Group, list[str], bool], None]
"""Gets the texts of a group's units until now, and whether they are final."""


class Translator:
    """Translates for one request. Use it on one event loop."""

    def __init__(self, chat: Chat, task: Task) -> None:
        self.chat, self.task = chat, task

    async def detect(self, text: str) -> Language:
        """The language of a text. Raises RequestError when the model does not name one."""
        codes = tuple(SOURCES)
        sample = text.strip()[: min(DETECTION_CHARACTERS, self.chat.max_characters)]
        reply = await self.chat.ask(detection(", ".join(codes)), sample or "-", choices=codes)
        language = _named(reply)
        if language is None:
            sentence = "the language of the text could not be found out; name it as source_lang"
            raise RequestError("invalid", sentence, field="source_lang")
        return language

    def groups(self, units: Sequence[Unit]) -> Iterator[Group]:
        """The units in groups that fit one reply."""
        group: list[Unit] = []
        first = length = 0
        for number, unit in enumerate(units):
            if group and length + len(unit.text) > self.chat.max_characters:
                yield Group(first, group)
                group, first, length = [], number, 0
            group.append(unit)
            length += len(unit.text) + 1
        if group:
            yield Group(first, group)

    async def translate(self, units: Sequence[Unit], progress: Progress | None = None) -> list[str]:
        """The texts of all units in the other language, with their marks. Raises RequestError."""
        groups = list(self.groups(units))
        parts = await gathered(self._group(group, progress) for group in groups)
        return [text for part in parts for text in part]

    async def _group(self, group: Group, progress: Progress | None) -> list[str]:
        """The translations of a group; those that are wrong in a reply to all its lines are made alone."""

        def watch(text: str) -> None:
            if progress is not None:
                lines = iter([line.strip() for line in text.splitlines() if line.strip()])
                drafts = [self.task.entry(unit.text) or next(lines, "") for unit in group.units]
                progress(group, drafts, False)

        units = [unit for unit in group.units if self.task.entry(unit.text) is None]
        lines: list[str] = []
        if len(units) > 1:
            lines = [line.strip() for line in (await self._ask(units, watch)).splitlines() if line.strip()]
        whole = dict(zip(units, lines, strict=False)) if len(lines) == len(units) else {}
        single = watch if len(group.units) == 1 else None
        texts = await gathered(self._text(unit, whole.get(unit), single) for unit in group.units)
        if progress is not None:
            progress(group, texts, True)
        return texts

    async def _text(self, unit: Unit, draft: str | None, watch: Watcher | None) -> str:
        """The translation of a unit: the draft, if it is right."""
        entry = self.task.entry(unit.text)
        if entry is not None:
            return entry
        if draft is not None and not self._complaint(unit, draft):
            return draft
        parts = list(cut(unit, self.chat.max_characters))
        texts = await gathered(self._alone(part, watch if len(parts) == 1 else None) for part, _ in parts)
        return "".join(text + space for text, (_, space) in zip(texts, parts, strict=True))

    async def _alone(self, unit: Unit, watch: Watcher | None) -> str:
        """The translation of one line, asked for twice, then made piece by piece if marks are missing."""
        if not unit.has_words:
            return unit.text
        text = " ".join((await self._ask([unit], watch)).split())
        complaint = self._complaint(unit, text)
        if complaint:
            text = " ".join((await self._ask([unit], None, text, complaint)).split())
        if is_whole(text, unit.marks):
            return text
        return "".join(await gathered(self._run(piece, unit) for piece in split(unit.text, unit.marks)))

    async def _run(self, piece: str, unit: Unit) -> str:
        """A piece of a line: a mark as it is, text translated, with the spaces around it."""
        if piece in unit.marks or not Unit(piece).has_words:
            return piece
        body = piece.strip()
        reply = " ".join((await self._ask([Unit(body)], None)).split())
        text = "".join(Unit(reply, unit.marks).runs())
        return piece[: len(piece) - len(piece.lstrip())] + text + piece[len(piece.rstrip()) :]

    async def _ask(self, units: Sequence[Unit], watch: Watcher | None, *further_turns: str) -> str:
        text = "\n".join(unit.text for unit in units)
        words = instruction(self.task, text, num_lines=len(units), has_tags=any(unit.marks for unit in units))
        return await self.chat.ask(words, text, *further_turns, watch=watch)

    def _complaint(self, unit: Unit, text: str) -> str:
        """The sentence that tells the model what is wrong with its reply; empty for a right one."""
        if not is_whole(text, unit.marks):
            return f"Tags are missing or out of order. Use each of these once: {' '.join(unit.marks)}"
        low = text.casefold()
        missing = {t: o for t, o in self.task.terms(unit.text).items() if o.casefold() not in low}
        pairs = "; ".join(f"{term} = {other}" for term, other in missing.items())
        return f"Use these translations of terms: {pairs}. Give the whole text again." if pairs else ""


def _named(reply: str) -> Language | None:
    """The language that a reply names, by its code or its name."""
    words = re.findall(r"\w+(?:-\w+)?", reply)
    code = base_code(words[0]) if words else ""
    named = (each for each in SOURCES.values() if each.name.split()[0].lower() in reply.lower())
    return SOURCES.get(code) or next(named, None)


async def gathered(works: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """The results of works that go on together; the first error ends the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def sample_of(units: Sequence[Unit]) -> str:
    """The beginning of the text of units, without marks."""
    return "\n".join(" ".join(unit.runs()) for unit in units[:20])[:DETECTION_CHARACTERS]
