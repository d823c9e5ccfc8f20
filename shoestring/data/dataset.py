"""The room's front door: a DataConfig and a tokenizer -> training and held-out shards with their manifest."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shoestring.data.corpus import DataConfig
from shoestring.data.packing import IGNORE_INDEX, Ids, framed
from shoestring.data.shards import Encoder, Shard, open_shards, special_ids, tokenize
from shoestring.data.textstore import Progress, TextStore, documents
from shoestring.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """Both splits as ids, the manifest to keep with a run, and the texts they came from."""

    train: Shard
    heldout: Shard
    manifest: dict[str, Any]
    store: TextStore


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRows:
    """Held-out documents as rows.

    Bits per byte is the summed loss (in bits) of all targets but IGNORE_INDEX, over `utf8_bytes`.
    """

    inputs: Ids  # (N, T)
    targets: Ids  # (N, T)
    num_tokens: int
    utf8_bytes: int
    documents: tuple[int, ...]
    """The documents' numbers in their shard."""


def prepare(
    config: DataConfig,
    tokenizer: Encoder,
    cache_dir: str | Path,
    progress: Progress | None = None,
    *,
    store: TextStore | None = None,
) -> Dataset:
    """Read, clean, split and tokenize; every stage is kept in `cache_dir` and reused while nothing changed.

    `progress` is called with (bytes done, bytes in all), from the start again for each stage. The first stage
    alone is `textstore.documents`: the texts to train a tokenizer on. Who has called that gives its `store`,
    or the whole corpus is hashed once more. Of several ranks let one go first.
    Raises DataError, StorageError, TokenizerError.
    """
    store = documents(config, cache_dir, progress) if store is None else store
    special = special_ids(tokenizer, fim=config.fim_rate > 0)
    folder = tokenize(store, tokenizer, cache_dir, special=special, progress=progress)
    shards, manifest = open_shards(folder)
    return Dataset(train=shards["train"], heldout=shards["heldout"], manifest=manifest, store=store)


def evaluation_rows(shard: Shard, *, seq_len: int, max_tokens: int | None = None) -> EvaluationRows:
    """Whole documents in order while `max_tokens` lasts; longer ones are passed over, at least one is taken.

    Rows are cut from the stream `bos ids eos bos ids eos ...` without fill-in-the-middle. Every id of a
    document and its eos is a target exactly once: the first id is predicted from bos, and the end of a
    document counts against the model, with no bytes in return. bos is never a target (IGNORE_INDEX), nor is
    the padding of the last row.
    """
    if seq_len < 1:
        raise ConfigError(f"seq_len = {seq_len} is not positive")
    chosen = _within(np.diff(shard.ends, prepend=0) + 1, max_tokens)
    if not chosen:
        raise DataError("nothing is held out to evaluate on; set heldout_fraction over 0")
    stream = np.concatenate([part for n in chosen for part in framed(shard.document(n), shard.special)])
    count = -(-(len(stream) - 1) // seq_len)
    padded = np.full(count * seq_len + 1, shard.special.eos, dtype=np.int64)
    padded[: len(stream)] = stream
    targets = padded[1:].copy()
    targets[len(stream) - 1 :] = IGNORE_INDEX
    begins = np.cumsum([len(shard.document(n)) + 2 for n in chosen])[:-1]
    targets[begins - 1] = IGNORE_INDEX
    return EvaluationRows(
        inputs=padded[:-1].reshape(count, seq_len),
        targets=targets.reshape(count, seq_len),
        num_tokens=int(np.count_nonzero(targets != IGNORE_INDEX)),
        utf8_bytes=int(shard.document_bytes[list(chosen)].sum()),
        documents=tuple(chosen),
    )


def _within(lengths: Ids, budget: int | None) -> list[int]:
    """The numbers of the documents to take, in order; the shortest alone if none fits."""
    if budget is None or len(lengths) == 0:
        return list(range(len(lengths)))
    chosen, left = [], budget
    for number, length in enumerate(lengths.tolist()):
        if length <= left:
            chosen.append(number)
            left -= length
    return chosen or [int(np.argmin(lengths))]
