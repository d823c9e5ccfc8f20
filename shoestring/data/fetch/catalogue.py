"""The corpora that can be fetched: wheels with exact versions and hashes, and packages of Debian."""

import json
from dataclasses import dataclass
from importlib.resources import files

from shoestring.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A wheel of pure Python: the same file on every machine."""

    package: str
    version: str
    sha256: str
    license: str
    """SPDX expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DebianPackage:
    """A package of documentation, in the version that this machine's Debian has."""

    package: str
    license: str
    """SPDX expression, after the package's copyright file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """A corpus by name."""

    name: str
    title: str
    text_bytes: int
    """About how much text it is."""
    wheels: tuple[Wheel, ...] = ()
    debian: tuple[DebianPackage, ...] = ()

    @property
    def parts(self) -> list[Wheel | DebianPackage]:
        """All its packages."""
        return [*self.wheels, *self.debian]

    @property
    def licenses(self) -> list[str]:
        """The licenses of its parts, each once."""
        return sorted({part.license for part in self.parts})


def corpora() -> list[Corpus]:
    """All corpora of the catalogue, by name."""
    table = json.loads(files("shoestring.data.fetch").joinpath("corpora.json").read_text(encoding="utf-8"))
    return [
        Corpus(
            name=name,
            title=entry["title"],
            text_bytes=entry["text_bytes"],
            wheels=tuple(Wheel(**part) for part in entry.get("wheels", ())),
            debian=tuple(DebianPackage(**part) for part in entry.get("debian", ())),
        )
        for name, entry in sorted(table.items())
    ]


def find_corpus(name: str) -> Corpus:
    """The corpus of that name. Raises ConfigError that says which there are."""
    table = {corpus.name: corpus for corpus in corpora()}
    if name not in table:
        raise ConfigError(f"there is no corpus {name!r}; there are {', '.join(table)}")
    return table[name]
