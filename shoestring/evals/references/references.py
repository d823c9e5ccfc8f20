"""References on held-out text: compressors, and compressors and n-grams that read the training text."""

from collections.abc import Mapping

import numpy as np

from shoestring.data.dataset import Dataset
from shoestring.evals.references import compressors, kneser_ney

PRIMER_BYTES = 1 << 26
"""Most bytes of training text that a reference reads: its last 64 MB, which is how far xz looks back."""
ORDER = 5


def alone(dataset: Dataset, documents: Mapping[str, list[int]]) -> dict[str, float]:
    """Bits per byte on documents of each split for compressors that have read nothing else."""
    return compressors.alone(b"".join(_text(dataset, *chosen) for chosen in documents.items()))


def with_primer(dataset: Dataset, documents: list[int], vocab_size: int) -> dict[str, float | int]:
    """Bits per byte on documents of the held-out split, for references that have read the training split.

    Nothing where no text is for training. `primer_bytes` is how much they have read.
    """
    numbers = _last(dataset, PRIMER_BYTES)
    if not numbers:
        return {}
    text, primer = _text(dataset, "heldout", documents), _text(dataset, "train", numbers)
    return {
        **compressors.with_primer(text, primer),
        f"{ORDER}-gram, primed": _ngram_bits(dataset, numbers, documents, vocab_size) / len(text),
        "primer_bytes": len(primer),
    }


def _text(dataset: Dataset, split: str, documents: list[int]) -> bytes:
    numbers = dataset.store.select(split)[documents].tolist()
    return "".join(document.text for document in dataset.store.read(numbers)).encode()


def _ngram_bits(dataset: Dataset, numbers: list[int], documents: list[int], vocab_size: int) -> float:
    shards, special = (dataset.train, dataset.heldout), dataset.train.special
    begin = special.eos if special.bos is None else special.bos
    before, targets = (
        kneser_ney.stream([shard.document(number) for number in chosen], begin, special.eos)
        for shard, chosen in zip(shards, (numbers, documents), strict=True)
    )
    levels = kneser_ney.count(before, vocab_size, ORDER)
    return float(-np.log2(kneser_ney.probabilities(levels, targets, vocab_size)).sum())


def _last(dataset: Dataset, limit: int) -> list[int]:
    """The last documents of the training split that have at most `limit` bytes together, or the last one."""
    sizes = dataset.train.document_bytes[::-1].cumsum()
    count = max(int(np.searchsorted(sizes, limit, side="right")), 1)
    return list(range(max(len(sizes) - count, 0), len(sizes)))
