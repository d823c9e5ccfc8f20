"""Bits per byte of held-out text, and those of gzip and xz on the same text."""

import gzip
import lzma
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from shoestring import kernels
from shoestring.data.dataset import Dataset, EvaluationRows, evaluation_rows
from shoestring.errors import ConfigError, DataError
from shoestring.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class TextEvalConfig:
    """The text to score: sources, context and number of tokens."""

    sources: tuple[str, ...] = ("stdlib",)
    """Folders, files, globs, dataset ids or stdlib; scored is the part that pretraining holds out."""
    seq_len: int = 512
    """Most tokens of context."""
    max_tokens: int = 65_536
    """Most tokens to score."""
    below: float | None = None
    """A threshold for the exit code: bits per byte must be below it. It changes no figure."""

    def __post_init__(self) -> None:
        if self.seq_len < 1 or self.max_tokens < 1:
            raise ConfigError("seq_len and max_tokens must be at least 1")


@dataclass(frozen=True, kw_only=True)
class BitsPerByte:
    """A score and the size of its text; every byte of whole documents is predicted once."""

    bits_per_byte: float
    nll_per_token: float
    """In nats, end-of-document tokens included."""
    tokens: int
    utf8_bytes: int
    documents: int


@torch.no_grad()
def score(model: Transformer, rows: EvaluationRows, *, rows_at_once: int = 8) -> BitsPerByte:
    """Bits per byte of `model` on held-out rows (B, T)."""
    total = 0.0
    for start in range(0, len(rows.inputs), rows_at_once):
        part = slice(start, start + rows_at_once)
        inputs_BT = torch.from_numpy(rows.inputs[part]).to(model.device)
        targets_N = torch.from_numpy(rows.targets[part]).to(model.device).flatten()
        hidden_ND = model.features(inputs_BT).hidden_BTD.flatten(0, 1)
        ones = torch.ones(len(targets_N), device=model.device)
        _, nll_N = kernels.linear_cross_entropy(hidden_ND, model.head_weight_WD, targets_N, ones)
        total += float(nll_N.double().sum())
    return BitsPerByte(
        bits_per_byte=total / math.log(2) / rows.utf8_bytes,
        nll_per_token=total / rows.num_tokens,
        tokens=rows.num_tokens,
        utf8_bytes=rows.utf8_bytes,
        documents=len(rows.documents),
    )


def heldout_bits_per_byte(
    model: Transformer, dataset: Dataset, *, seq_len: int, max_tokens: int
) -> BitsPerByte:
    """Score the beginning of the held-out split: whole documents of at most `max_tokens` tokens in all."""
    return score(model, evaluation_rows(dataset.heldout, seq_len=seq_len, max_tokens=max_tokens))


def heldout_evaluator(*, seq_len: int, max_tokens: int) -> Callable[[Transformer, Dataset], float]:
    """A function of model and dataset that pretraining calls for its held-out bits per byte."""

    def evaluate(model: Transformer, dataset: Dataset) -> float:
        result = heldout_bits_per_byte(model, dataset, seq_len=seq_len, max_tokens=max_tokens)
        return result.bits_per_byte

    return evaluate


def compare_with_compressors(
    model: Transformer, dataset: Dataset, *, seq_len: int, max_tokens: int
) -> dict[str, float | int]:
    """Bits per byte of the model, of gzip and of xz on the same held-out documents."""
    rows = evaluation_rows(dataset.heldout, seq_len=seq_len, max_tokens=max_tokens)
    result = score(model, rows)
    texts = list(dataset.store.texts("heldout"))
    return {
        "bits_per_byte": result.bits_per_byte,
        **compressed_bits_per_byte([texts[number] for number in rows.documents]),
        "tokens": result.tokens,
        "utf8_bytes": result.utf8_bytes,
        "documents": result.documents,
    }


def compressed_bits_per_byte(texts: list[str]) -> dict[str, float]:
    """Bits per byte of `gzip -9` and `xz -9` on the texts in one stream; DataError if there is no text."""
    data = "".join(texts).encode()
    if not data:
        raise DataError("there is no text to compress; set heldout_fraction over 0")
    return {
        "gzip -9": 8 * len(gzip.compress(data, compresslevel=9)) / len(data),
        "xz -9": 8 * len(lzma.compress(data, preset=9)) / len(data),
    }
