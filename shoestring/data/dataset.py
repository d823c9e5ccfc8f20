"""Training and held-out shards with their manifest, prepared from a DataConfig and a tokenizer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shoestring.data.corpus import DataConfig
from shoestring.data.packing import IGNORE_INDEX, Ids, frame
from shoestring.data.shards import Encoder, Shard, open_shards, special_ids, tokenize
from shoestring.data.textstore import Progress, TextStore, prepare_corpus
from shoestring.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Both splits as token ids, the manifest to keep with a run, and the texts they were made from."""

    train: Shard
    heldout: Shard
    manifest: dict[str, Any]
    store: TextStore


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRows:
    """Held-out documents as rows of token ids.

    Bits per byte is the summed loss (in bits) of all targets but IGNORE_INDEX, divided by `utf8_bytes`.
    """

    inputs: Ids  # (N, T)
    targets: Ids  # (N, T)
    num_tokens: int
    utf8_bytes: int
    documents: tuple[int, ...]
    """Indices of the documents in their shard."""


def prepare(
    config: DataConfig,
    tokenizer: Encoder,
    cache_dir: str | Path,
    progress: Progress | None = None,
    *,
    store: TextStore | None = None,
) -> Dataset:
    """Read, clean, split and tokenize a corpus; `cache_dir` keeps each stage to use it again while unchanged.

    `progress` is called with (bytes done, bytes in all) and starts again for each stage. `store` is the
    result of the first stage (`textstore.prepare_corpus`) for a caller that has it; otherwise the whole
    corpus is hashed here. With several ranks, let one go first.
    Raises DataError, StorageError, TokenizerError.
    """
    store = prepare_corpus(config, cache_dir, progress) if store is None else store
    special = special_ids(tokenizer, fim=config.fim_rate > 0)
    folder = tokenize(store, tokenizer, cache_dir, special=special, progress=progress)
    shards, manifest = open_shards(folder)
    return Dataset(train=shards["train"], heldout=shards["heldout"], manifest=manifest, store=store)


def evaluation_rows(shard: Shard, *, seq_len: int, max_tokens: int | None = None) -> EvaluationRows:
    """Rows of whole documents in order, up to `max_tokens`; a document that does not fit is left out.

    If no document fits, the shortest one is used. Rows are cut from the stream `bos ids eos bos ids eos ...`
    without fill-in-the-middle. Every id of a document and its eos is a target exactly once: the first id is
    predicted from bos, and the loss of eos counts although eos has no bytes. bos and the padding of the last
    row are never targets (IGNORE_INDEX). Without bos the stream is `eos ids eos ids eos ...`.
    """
    if seq_len < 1:
        raise ConfigError(f"seq_len = {seq_len} is not positive")
    documents = _documents_within(np.diff(shard.ends, prepend=0) + 1, max_tokens)
    if not documents:
        raise DataError("no documents are held out for evaluation; set heldout_fraction over 0")
    bos, eos = shard.special.bos, shard.special.eos
    start = [] if bos is not None else [np.array([eos])]
    parts = [part for n in documents for part in frame(shard.document(n), shard.special)]
    stream = np.concatenate([*start, *parts])
    count = -(-(len(stream) - 1) // seq_len)
    row_ids = np.full(count * seq_len + 1, eos, dtype=np.int64)
    row_ids[: len(stream)] = stream
    targets = row_ids[1:].copy()
    targets[len(stream) - 1 :] = IGNORE_INDEX
    if bos is not None:
        begins = np.cumsum([len(shard.document(n)) + 2 for n in documents])[:-1]
        targets[begins - 1] = IGNORE_INDEX
    return EvaluationRows(
        inputs=row_ids[:-1].reshape(count, seq_len),
        targets=targets.reshape(count, seq_len),
        num_tokens=int(np.count_nonzero(targets != IGNORE_INDEX)),
        utf8_bytes=int(shard.document_bytes[list(documents)].sum()),
        documents=tuple(documents),
    )


def _documents_within(lengths: Ids, budget: int | None) -> list[int]:
    """Indices of the documents that fit into the budget, in order; the shortest alone if none fits."""
    if budget is None or len(lengths) == 0:
        return list(range(len(lengths)))
    indices = []
    for index, length in enumerate(lengths.tolist()):
        if length <= budget:
            indices.append(index)
            budget -= length
    return indices or [int(np.argmin(lengths))]
