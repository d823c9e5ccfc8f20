import gzip
import lzma
import random

import pyppmd
import pytest

from shoestring.errors import DataError
from shoestring.evals.references.compressors import PPM_ORDER, alone, with_primer

TEXT = ("der schnelle braune Fuchs springt " * 20 + "über den faulen Hund " * 30).encode()


def test_alone_is_what_each_library_makes_of_the_text():
    found = alone(TEXT)
    assert found["gzip -9"] == 8 * len(gzip.compress(TEXT, 9)) / len(TEXT)
    assert found["xz -9"] == 8 * len(lzma.compress(TEXT, preset=9)) / len(TEXT)
    whole = pyppmd.Ppmd7Encoder(PPM_ORDER, 1 << 24)
    assert found[f"ppmd -o{PPM_ORDER}"] == 8 * len(whole.encode(TEXT) + whole.flush()) / len(TEXT)


def test_nothing_cannot_be_compressed():
    with pytest.raises(DataError, match="no text"):
        alone(b"")


def test_what_was_read_before_costs_almost_nothing():
    generator = random.Random(1)
    words = [generator.randbytes(8).hex() for _ in range(500)]
    text, other = (" ".join(generator.choices(words, k=2000)).encode() for _ in range(2))
    unread = alone(text)
    read, relevant = with_primer(text, text), with_primer(text, other)
    for name in ("xz -9", f"ppmd -o{PPM_ORDER}"):
        assert read[f"{name}, primed"] < 0.3
        assert read[f"{name}, primed"] < relevant[f"{name}, primed"] < unread[name]
        assert with_primer(text, b"")[f"{name}, primed"] == pytest.approx(unread[name], rel=0.02)
