import numpy as np
import pytest

from shoestring.data.corpus import DataConfig
from shoestring.data.dataset import prepare
from shoestring.evals.references import references
from shoestring.evals.references.compressors import alone, with_primer
from shoestring.tokenizer.bpe import Tokenizer


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    generator = np.random.default_rng(5)
    words = [generator.bytes(3).hex() for _ in range(200)]
    for number in range(60):
        (folder / f"{number:02}.txt").write_text(" ".join(generator.choice(words, 300)))
    tokenizer = Tokenizer.train([" ".join(words)], 300)
    config = DataConfig(sources=(str(folder),), heldout_fraction=0.2, fim_rate=0.0)
    return prepare(config, tokenizer, folder / "cache")


def texts(dataset, split):
    return "".join(dataset.store.texts(split)).encode()


def test_primed_references_have_read_the_training_split(dataset):
    documents = list(range(len(dataset.heldout)))
    found = references.with_primer(dataset, documents, 300)
    expected = with_primer(texts(dataset, "heldout"), texts(dataset, "train"))
    assert {name: found[name] for name in expected} == expected
    assert found["primer_bytes"] == len(texts(dataset, "train"))
    assert references.alone(dataset, {"heldout": documents}) == alone(texts(dataset, "heldout"))
    assert 0.5 < found["5-gram, primed"] < 4  # 200 words of 7 bytes are 1.1 bits a byte


def test_a_large_primer_is_cut_to_its_end(dataset, monkeypatch):
    monkeypatch.setattr(references, "PRIMER_BYTES", 5000)
    last = list(dataset.store.texts("train"))[-2:]
    assert references.with_primer(dataset, [0], 300)["primer_bytes"] == len("".join(last).encode())
    monkeypatch.setattr(references, "PRIMER_BYTES", 10)
    assert references.with_primer(dataset, [0], 300)["primer_bytes"] == len(last[-1].encode())
