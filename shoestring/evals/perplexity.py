"""Bits per byte of held-out text, and those of compressors and n-grams on the same text.

Every id of a document and its end are predicted once, the first from the begin token. A model without one
(Qwen2) predicts it from the end token, as lm-evaluation-harness does.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from shoestring import kernels
from shoestring.data.dataset import Dataset, EvaluationRows, evaluation_rows
from shoestring.errors import ConfigError, DataError
from shoestring.evals.references import references
from shoestring.model.transformer import Transformer


@dataclass(frozen=True, kw_only=True)
class TextEvalConfig:
    """The text to score: sources, context and number of tokens."""

    sources: tuple[str, ...] = ("stdlib",)
    """Folders, files, globs, dataset ids or stdlib."""
    split: Literal["heldout", "all"] = "heldout"
    """The part that pretraining holds out, or every text."""
    seq_len: int = 512
    """Most tokens of context."""
    max_tokens: int = 65_536
    """Most tokens to score; 0: all of them."""
    below: float | None = None
    """A threshold for the exit code: bits per byte must be below it. It changes no figure."""

    def __post_init__(self) -> None:
        if self.split not in ("heldout", "all"):
            raise ConfigError(f"split = {self.split!r} is neither heldout nor all")
        if self.seq_len < 1 or self.max_tokens < 0:
            raise ConfigError("seq_len must be at least 1, and max_tokens at least 0")


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


def compare_with_references(
    model: Transformer, dataset: Dataset, config: TextEvalConfig
) -> dict[str, float | int]:
    """Bits per byte of the model and of references on the same documents, and how many there are.

    Where only held-out text is scored, references that have read the training split of these sources stand
    beside those that have read nothing: a model that was trained on it is to be compared with them.
    """
    shards = {"heldout": dataset.heldout} | ({"train": dataset.train} if config.split == "all" else {})
    shards = {split: shard for split, shard in shards.items() if len(shard)}
    budget = config.max_tokens or None
    scores, documents = [], {}
    for split, shard in shards.items():
        if budget is not None and budget < 1:
            break
        rows = evaluation_rows(shard, seq_len=config.seq_len, max_tokens=budget)
        scores.append(score(model, rows))
        documents[split] = list(rows.documents)
        budget = None if budget is None else budget - rows.num_tokens
    if not scores:
        raise DataError("no documents are held out for evaluation; --set split=all scores every text")
    tokens, utf8_bytes = sum(one.tokens for one in scores), sum(one.utf8_bytes for one in scores)
    nats = sum(one.nll_per_token * one.tokens for one in scores)
    primer = {}
    if config.split == "heldout":
        primer = references.with_primer(dataset, documents["heldout"], model.config.vocab_size)
    return {
        "bits_per_byte": nats / math.log(2) / utf8_bytes,
        **references.alone(dataset, documents),
        **primer,
        "tokens": tokens,
        "utf8_bytes": utf8_bytes,
        "documents": sum(map(len, documents.values())),
        "documents_there": sum(map(len, shards.values())),
        "utf8_bytes_there": sum(int(shard.document_bytes.sum()) for shard in shards.values()),
    }
