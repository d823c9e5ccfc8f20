"""Bits per byte of compressors, alone and with a primer: another text read before the one that is counted.

A model has read its training text before it meets held-out text, so the fair reference is a compressor that
has read it too. It counts what the held-out text adds to the compressed size of both.
"""

import gzip
import lzma
from concurrent.futures import ThreadPoolExecutor

import pyppmd

from shoestring.errors import DataError

PPM_ORDER = 16
"""Bytes of context at most; the best of 5, 8 and 16 on Python source (docs/LOG.md)."""
PPM_MEMORY_PER_BYTE, PPM_MEMORY = 48, (1 << 24, 1 << 31)
"""Memory of PPMd's contexts: so much a byte of text, within these bounds; it starts anew when it is full."""
PIECE_BYTES = 1 << 20


def alone(text: bytes) -> dict[str, float]:
    """Bits per byte of gzip, xz and PPMd that have read nothing; DataError if there is no text."""
    if not text:
        raise DataError("there is no text to compress; set heldout_fraction over 0")
    sizes = {
        "gzip -9": len(gzip.compress(text, compresslevel=9)),
        "xz -9": len(lzma.compress(text, preset=9)),
        f"ppmd -o{PPM_ORDER}": ppm_size(b"", text),
    }
    return {name: 8 * size / len(text) for name, size in sizes.items()}


def with_primer(text: bytes, primer: bytes) -> dict[str, float]:
    """Bits per byte of `text`, which is not empty, for xz and PPMd that have read `primer`."""
    with ThreadPoolExecutor(2) as threads:  # both libraries let other threads run
        both, before = (threads.submit(lzma.compress, data, preset=9) for data in (primer + text, primer))
        ppm = ppm_size(primer, text)
        xz = len(both.result()) - len(before.result())
    sizes = {"xz -9, primed": xz, f"ppmd -o{PPM_ORDER}, primed": ppm}
    return {name: 8 * size / len(text) for name, size in sizes.items()}


def ppm_size(primer: bytes, text: bytes) -> int:
    """Bytes that PPMd (variant H) adds for `text` after it has read `primer`."""
    low, high = PPM_MEMORY
    memory = min(max(PPM_MEMORY_PER_BYTE * (len(primer) + len(text)), low), high)
    encoder = pyppmd.Ppmd7Encoder(PPM_ORDER, memory)
    for start in range(0, len(primer), PIECE_BYTES):
        encoder.encode(primer[start : start + PIECE_BYTES])
    return len(encoder.encode(text)) + len(encoder.flush())
