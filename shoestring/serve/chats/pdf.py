"""PDFs, which strangers send: each is read by a child process of its own, within limits."""

from dataclasses import dataclass
from pathlib import Path

from shoestring import child
from shoestring.serve.backends.errors import RequestError

LIMIT_S = 25.0
"""Seconds for a PDF, with the start of the child."""
MAX_REPLY_BYTES = 32 << 20
HEAD = b"%PDF-"
HEAD_BYTES = 1024
"""Bytes in which the head of a PDF stands."""
SENTENCES = {
    "password": "it has a password; save it without one",
    "damaged": "it is damaged; open it in a viewer and save it anew",
    "no_text": "there is no text in it: its pages are images",
    "memory": "it takes too much memory; send it in parts, or as text",
}
TOO_LONG = "it takes too long or too much memory; send it in parts, or as text"


@dataclass(frozen=True)
class PdfText:
    """The text of a PDF."""

    text: str
    num_pages: int
    is_cut: bool
    """Not all pages were read."""


def is_pdf(data: bytes) -> bool:
    """Return whether a file says that it is a PDF."""
    return HEAD in data[:HEAD_BYTES]


def read_pdf(data: bytes) -> PdfText:
    """The text of a PDF; takes seconds. Raises RequestError that says what is wrong with it."""
    process = child.start(Path(__file__).with_name("pdf_child.py"))
    try:
        message = len(data).to_bytes(8, "big") + data
        reply = child.exchange(process, message, limit_s=LIMIT_S, max_reply_bytes=MAX_REPLY_BYTES)
    finally:
        child.end(process)
    if reply is None or "error" in reply:
        sentence = TOO_LONG if reply is None else SENTENCES[reply["error"]]
        raise RequestError("invalid", f"this PDF cannot be read: {sentence}")
    return PdfText(**reply)
