"""Attachments: the text of files that people add to a message. Nothing of them is kept here."""

import asyncio
import codecs
import re

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.chats.few import FewAtOnce
from shoestring.serve.chats.pdf import is_pdf, read_pdf
from shoestring.serve.chats.schema import AttachmentText, storable

MAX_FILE_BYTES = 10 << 20
MAX_TEXT_BYTES = 512 << 10
"""UTF-8 bytes of an attachment's text: several of them fit into a message."""
NUM_AT_ONCE, NUM_OF_ACCOUNT = 2, 4
"""Files that are read at the same time; those of one account with the ones that wait."""
MAX_CONTROLS = 0.005
"""The share of control characters beyond which a file is no text."""
CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
BOMS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


class Attachments:
    """The reading of files for all accounts. Use it on one event loop."""

    def __init__(self) -> None:
        self._files = FewAtOnce(NUM_AT_ONCE, NUM_OF_ACCOUNT, "files")

    async def read(self, account_id: str, name: str, data: bytes) -> AttachmentText:
        """The text of a file. Raises RequestError for one that is neither text nor PDF, and one too many."""
        async with self._files.turn(account_id):
            return await asyncio.to_thread(attachment_text, name, data)


def attachment_text(name: str, data: bytes) -> AttachmentText:
    """The text of a file; a PDF takes seconds. Raises RequestError for one that is neither text nor PDF."""
    num_pages, is_cut = None, False
    if is_pdf(data):
        pdf = read_pdf(data)
        text, num_pages, is_cut = pdf.text, pdf.num_pages, pdf.is_cut
    elif (content := file_text(data)) is not None:
        text = content
    else:
        sentence = "is neither text nor a PDF; save it as one of them"
        raise RequestError("invalid", f"{name[-100:]} {sentence}", field="name")
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
