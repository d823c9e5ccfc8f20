"""Texts of a wheel or a Debian package: source, manuals and pages, by names that stay in their folder."""

import gzip
import io
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import IO

from shoestring.data.fetch.html_text import html_text, tidy

FILE_BYTES = 4 << 20
"""Larger files are tables or bundles, and are left out."""
MIN_BYTES = 64
SOURCE = (".py", ".pyi", ".md", ".rst", ".txt")
MANUALS = (".txt", ".md", ".rst", ".html", ".htm", ".pod", ".texi")
TEST_FOLDERS = frozenset(("test", "tests", "testing"))
"""They would triple the text, and much of it is data (as of `stdlib`)."""
MENU_PAGES = 20
LICENSE_NAMES = ("license", "licence", "copying", "notice", "authors", "copyright")

Text = tuple[str, str]
"""Name and content; the name ends in .py, .md or .txt, which every reader of text knows."""


def wheel_texts(archive: zipfile.ZipFile) -> Iterator[Text]:
    """Python source, documentation and licenses of a wheel, in the order of their names."""
    for info in sorted(archive.infolist(), key=lambda info: info.filename):
        name = info.filename
        if info.is_dir() or info.file_size > FILE_BYTES or not _is_wanted(name, SOURCE):
            continue
        with archive.open(info) as file:
            text = _decode(file)
        if text is not None:
            yield _text_name(name), text


def debian_texts(stream: IO[bytes]) -> Iterator[Text]:
    """Manuals and licenses of the tar stream of a Debian package; HTML becomes plain text without menus."""
    texts, pages = [], []
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if not member.isreg() or member.size > FILE_BYTES:
                continue
            file, plain = archive.extractfile(member), name.removesuffix(".gz")
            if file is None or not _is_wanted(plain, MANUALS):
                continue
            text = _decode(_unpacked(file) if name != plain else file)
            if text is not None and plain.endswith((".html", ".htm")):
                pages.append((_text_name(plain), html_text(text)))
            elif text is not None:
                texts.append((_text_name(plain), text))
    yield from texts
    yield from _without_menus(pages)


def _without_menus(pages: list[Text]) -> Iterator[Text]:
    """Pages without the lines that most of them have, where there are enough to tell."""
    counts = Counter(line for _, text in pages for line in set(text.splitlines()))
    most = max(len(pages) / 2, MENU_PAGES)
    for name, text in pages:
        lines = (line for line in text.splitlines() if not line or counts[line] <= most)
        yield name, tidy("\n".join(lines))


def safe_name(name: str) -> PurePosixPath | None:
    """The name as a path below a folder; None for one that would leave it."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or any(part in ("..", ".") or ":" in part for part in path.parts):
        return None
    return path


def _is_wanted(name: str, suffixes: tuple[str, ...]) -> bool:
    path = PurePosixPath(name)
    if TEST_FOLDERS.intersection(part.lower() for part in path.parts[:-1]):
        return False
    is_license = path.name.lower().startswith(LICENSE_NAMES)
    return safe_name(name) is not None and (path.suffix in suffixes or is_license)


def _text_name(name: str) -> str:
    """The name with an ending that readers of text know."""
    return name if name.endswith((".py", ".md", ".txt")) else f"{name}.txt"


def _unpacked(file: IO[bytes]) -> IO[bytes]:
    """Content of a .gz file, of which one byte more than FILE_BYTES is read at most."""
    try:
        return io.BytesIO(gzip.GzipFile(fileobj=file).read(FILE_BYTES + 1))
    except (OSError, EOFError, zlib.error):
        return io.BytesIO()


def _decode(file: IO[bytes]) -> str | None:
    """Content as UTF-8; None for what is another encoding, binary, too large or next to empty."""
    data = file.read(FILE_BYTES + 1)
    if not MIN_BYTES <= len(data) <= FILE_BYTES or b"\0" in data:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
