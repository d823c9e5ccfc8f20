"""Attachments: the text of files that people add to a message. Nothing of them is kept here."""

import asyncio
import codecs
import re
from collections import Counter

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.pdf import is_pdf, read_pdf
from shoestring.serve.chats.schema import AttachmentText, storable

MAX_FILE_BYTES = 10 << 20
MAX_TEXT_BYTES = 512 << 10
"""UTF-8 bytes of an attachment's text: several of them fit into a message."""
MAX_FILES = 2
"""Files of an account that are read at the same time."""
NUM_CHILDREN = 2
"""PDFs that are read at the same time, of all accounts."""
MAX_CONTROLS = 0.005
"""The share of control characters beyond which a file is no text."""
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Attachments:
    """The reading of files for all accounts. Use it on one event loop."""

    def __init__(self) -> None:
        self._children = asyncio.Semaphore(NUM_CHILDREN)
        self._num_files: Counter[str] = Counter()

    async def read(self, account_id: str, name: str, data: bytes) -> AttachmentText:
        """The text of a file. Raises RequestError for one that is neither text nor PDF, and one too many."""
        if self._num_files[account_id] >= MAX_FILES:
            sentence = f"{MAX_FILES} files of yours are being read, which is the most; wait for one"
            raise RequestError("rate_limit", sentence, retry_after_s=2)
        self._num_files[account_id] += 1
        try:
            return await self._read(name, data)
        finally:
            self._num_files[account_id] -= 1
            self._num_files += Counter()  # without those that have none

    async def _read(self, name: str, data: bytes) -> AttachmentText:
        num_pages, is_cut = None, False
        if is_pdf(data):
            async with self._children:
                pdf = await asyncio.to_thread(read_pdf, data)
            text, num_pages, is_cut = pdf.text, pdf.num_pages, pdf.is_cut
        else:
            decoded = await asyncio.to_thread(file_text, data)
            if decoded is None:
                sentence = "is neither text nor a PDF; save it as one of them"
                raise RequestError("invalid", f"{name[-100:]} {sentence}", field="name")
            text = decoded
        text = storable(text.replace("\r\n", "\n"))
        part = text.encode()[:MAX_TEXT_BYTES].decode(errors="ignore")
        return AttachmentText(name=name, text=part, num_pages=num_pages, is_cut=is_cut or part != text)


def file_text(data: bytes) -> str | None:
    """The text of a file in UTF-8, UTF-16 or Windows' western code page; None for one that is no text."""
    for encoding in _encodings(data):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if len(CONTROLS.findall(text)) <= MAX_CONTROLS * len(text) and "\0" not in text:
            return text
    return None


def _encodings(data: bytes) -> list[str]:
    """The encodings that a file may have, the likeliest first."""
    for bom, encoding in BOMS.items():
        if data.startswith(bom):
            return [encoding]
    if b"\0" not in data[:1000]:
        return ["utf-8", "cp1252"]
    even, odd = data[0:1000:2].count(0), data[1:1000:2].count(0)
    return ["utf-16-le" if odd > even else "utf-16-be"]
