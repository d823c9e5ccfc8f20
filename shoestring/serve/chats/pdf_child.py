"""The child process that reads one PDF: within limits of time and memory, and it may be killed.

`pdf.read_pdf` runs it as a script. Its input is the length of the file in eight bytes and the file; its reply
is JSON after its length in four bytes: `{"text", "num_pages", "is_cut"}`, or `{"error": word}`.
"""

import io
import json
import sys
import time
from typing import Any, BinaryIO

MEMORY_BYTES = 768 << 20
"""Address space; a PDF of 10 MiB with its text takes a third of it."""
CPU_S = 30
ENOUGH_S = 12.0
"""Seconds after which no further page is begun."""
MAX_CHARS = 512 << 10
"""Characters after which no further page is begun."""


def main() -> None:
    """Answer the one request."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    size = int.from_bytes(requests.read(8), "big")
    data = requests.read(size)
    _limit()
    try:
        reply = pdf_text(io.BytesIO(data))
    except MemoryError:
        reply = {"error": "memory"}
    text = json.dumps(reply).encode()
    replies.write(len(text).to_bytes(4, "big") + text)
    replies.flush()


def pdf_text(file: BinaryIO) -> dict[str, Any]:
    """The text of a PDF, page by page, or the word for what is wrong with it."""
    from pypdf import PdfReader, overwrite_configuration
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

    overwrite_configuration(jbig2dec_binary=None)  # no program is run
    end_s = time.monotonic() + ENOUGH_S
    try:
        reader = PdfReader(file)
        if reader.is_encrypted and not reader.decrypt(""):
            return {"error": "password"}
        num_pages = len(reader.pages)
        texts: list[str] = []
        num_chars = 0
        for page in reader.pages:
            if num_chars > MAX_CHARS or time.monotonic() > end_s:
                break
            texts.append(page.extract_text())
            num_chars += len(texts[-1])
    except (DependencyError, FileNotDecryptedError):
        return {"error": "password"}
    except (LimitReachedError, RecursionError):
        return {"error": "memory"}
    except MemoryError:
        raise
    except Exception:  # a damaged file has many ways to be wrong
        return {"error": "damaged"}
    text = "\n\n".join(texts)
    if not text.strip():
        return {"error": "no_text"}
    return {"text": text, "num_pages": num_pages, "is_cut": len(texts) < num_pages}


def _limit() -> None:
    """Limit this process, where the system can."""
    if sys.platform == "win32":
        return
    import resource

    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_AS, MEMORY_BYTES),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


if __name__ == "__main__":
    main()
