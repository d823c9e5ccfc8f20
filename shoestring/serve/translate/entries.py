"""Entries of a glossary: terms and their translations, as tab- or comma-separated lines."""

import csv
import io
from collections.abc import Iterable, Mapping
from typing import Any

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.translate.languages import base_code, source_language

MAX_BYTES = 10 << 20
"""Of one dictionary's lines."""
MAX_TERM = 1024
"""Characters of a term."""


def read_entries(text: str, form: str) -> dict[str, str]:
    """The entries of lines in the form tsv or csv. Raises RequestError naming the line that is wrong."""
    if form not in ("tsv", "csv"):
        raise _wrong(f"entries_format = {form[:20]!r} must be tsv or csv", "entries_format")
    if len(text) > MAX_BYTES:
        raise RequestError("too_large", f"the entries are longer than {MAX_BYTES >> 20} MiB", field="entries")
    entries: dict[str, str] = {}
    try:
        for number, cells in enumerate(_rows(text, form), 1):
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) < 2 or (form == "tsv" and len(cells) > 2):
                raise _wrong(f"Entry {number} is no pair of a term and its translation", "entries")
            _add(entries, cells[0].strip(), cells[1].strip(), number)
    except csv.Error as error:
        raise _wrong(f"the entries are not CSV: {error}", "entries") from None
    if not entries:
        raise _wrong("Missing or invalid argument: entries: there is none", "entries")
    return entries


def write_tsv(entries: Mapping[str, str]) -> str:
    """The entries as lines with a tab between a term and its translation."""
    return "\n".join(f"{term}\t{other}" for term, other in entries.items())


def read_dictionary(fields: Any) -> dict[str, Any]:
    """A dictionary of a glossary: its languages and entries. Raises RequestError."""
    if not isinstance(fields, Mapping):
        raise _wrong("Missing or invalid argument: dictionaries", "dictionaries")
    texts = {name: fields.get(name) for name in ("source_lang", "target_lang", "entries", "entries_format")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise _wrong(f"Missing or invalid argument: {name}", name)
    pair = language_pair(str(texts["source_lang"]), str(texts["target_lang"]))
    entries = read_entries(str(texts["entries"]), str(texts["entries_format"]))
    return {"source_lang": pair[0], "target_lang": pair[1], "entries": entries}


def language_pair(source: str, target: str) -> tuple[str, str]:
    """The codes of two different languages, without regions. Raises RequestError."""
    for code, field in ((source, "source_lang"), (target, "target_lang")):
        try:
            source_language(code)
        except RequestError:
            sentence = f"Value for '{field}' not supported: {code[:20]!r}"
            raise RequestError("invalid", sentence, field=field) from None
    if base_code(source) == base_code(target):
        raise _wrong("a glossary has two different languages", "target_lang")
    return base_code(source), base_code(target)


def _rows(text: str, form: str) -> Iterable[list[str]]:
    if form == "csv":
        return csv.reader(io.StringIO(text, newline=""))
    return (line.split("\t") for line in text.splitlines())


def _add(entries: dict[str, str], term: str, other: str, number: int) -> None:
    for text in (term, other):
        if not text or len(text) > MAX_TERM or not text.isprintable():
            raise _wrong(f"Entry {number} has a term that is empty, too long or not printable", "entries")
    if term in entries:
        raise _wrong(f'Entry {number} has the term "{term[:100]}" a second time', "entries")
    entries[term] = other


def _wrong(sentence: str, field: str) -> RequestError:
    return RequestError("invalid", sentence, field=field)
