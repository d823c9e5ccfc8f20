"""Documents -> ids in memory-mapped shards, one per split, verified by hash and reused while nothing changed.

Files of a folder: `train.bin`, `heldout.bin` (ids, uint16 or uint32 by vocabulary, documents end to end,
no special tokens), `train.npy`, `heldout.npy` (ENTRY per document), `manifest.json`.
"""

import hashlib
import json
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from shoestring.data.folder import open_sealed, seal
from shoestring.data.manifest import SPLITS, add_counts
from shoestring.data.textstore import Progress, TextStore, load_index
from shoestring.durable import new_folder
from shoestring.errors import DataError, TokenizerError

KIND, FORMAT = "shoestring shards", 1
ENTRY = np.dtype([("end", "<u8"), ("bytes", "<u8")])
DTYPES: dict[str, np.dtype[Any]] = {name: np.dtype(name) for name in ("<u2", "<u4")}
BATCH_BYTES, BATCH_DOCUMENTS = 1 << 20, 1024
PROBES, PROBE_CHARACTERS = 256, 1024
FIM_TOKENS = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")


class Encoder(Protocol):
    """What this room needs of a tokenizer; text never yields special tokens."""

    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    def encode_batch(self, texts: list[str], /) -> list[list[int]]: ...
    def special_id(self, spelling: str, /) -> int: ...
    def token_bytes(self, token_id: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """The ids that frame a document; `fim` is (begin, hole, end), or None without fill-in-the-middle."""

    bos: int
    eos: int
    fim: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One split's documents as ids; `key` names corpus, tokenizer and options together."""

    ids: NDArray[Any]  # (tokens,)
    ends: NDArray[np.int64]  # (documents,)
    document_bytes: NDArray[np.int64]  # (documents,) UTF-8 bytes
    special: SpecialIds
    key: str

    def __len__(self) -> int:
        return len(self.ends)

    def document(self, number: int) -> NDArray[Any]:
        """The ids of one document, without special tokens; a view of the file.  # (tokens,)"""
        start = int(self.ends[number - 1]) if number else 0
        return self.ids[start : int(self.ends[number])]


def special_ids(tokenizer: Encoder, *, fim: bool) -> SpecialIds:
    """The framing ids of `tokenizer`; its own error says so if it lacks a fill-in-the-middle token."""
    found = None
    if fim:
        begin, hole, end = (tokenizer.special_id(name) for name in FIM_TOKENS)
        found = (begin, hole, end)
    return SpecialIds(bos=tokenizer.bos_id, eos=tokenizer.eos_id, fim=found)


def tokenize(
    store: TextStore,
    tokenizer: Encoder,
    cache_dir: str | Path,
    *,
    special: SpecialIds,
    progress: Progress | None = None,
) -> Path:
    """The folder with the ids of `store`, written now or found in `cache_dir`; memory stays bounded.

    Raises StorageError for a full disk and TokenizerError for ids outside the vocabulary.
    """
    key = _key(store, tokenizer, special)
    folder = Path(cache_dir) / f"shards-{key[:16]}"
    if folder.exists():
        return folder
    dtype = DTYPES["<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"]
    total = int(store.sizes().sum())
    # A byte-pair token of text stands for 2 bytes or more.
    with new_folder(folder, needed_bytes=total * dtype.itemsize // 2) as partial:
        counts = np.zeros(len(store.index), dtype=np.int64)
        done = 0
        for split in SPLITS:
            chosen = store.select(split)
            lengths = array("Q")
            with open(partial / f"{split}.bin", "wb") as out:
                for texts in _batches(store.texts(split)):
                    for ids in tokenizer.encode_batch(texts):
                        out.write(_packed(ids, dtype, tokenizer.vocab_size))
                        lengths.append(len(ids))
                    done += sum(len(text.encode()) for text in texts)
                    if progress:
                        progress(done, total)
            counts[chosen] = lengths
            entries = np.zeros(len(chosen), dtype=ENTRY)
            entries["end"], entries["bytes"] = np.cumsum(counts[chosen]), store.sizes()[chosen]
            np.save(partial / f"{split}.npy", entries, allow_pickle=False)
        seal(partial, _manifest(store, special, dtype, counts, key))
    return folder


def open_shards(folder: Path) -> tuple[dict[str, Shard], dict[str, Any]]:
    """The shards of a finished folder by split, and its manifest; raises DataError naming a damaged file."""
    names = tuple(f"{split}{suffix}" for split in SPLITS for suffix in (".bin", ".npy"))
    manifest = open_sealed(folder, kind=KIND, names=names)
    try:
        dtype = DTYPES[manifest["dtype"]]
        fim = manifest["special"]["fim"]
        special = SpecialIds(
            bos=int(manifest["special"]["bos"]),
            eos=int(manifest["special"]["eos"]),
            fim=None if fim is None else (int(fim[0]), int(fim[1]), int(fim[2])),
        )
        key = str(manifest["key"])
    except (KeyError, TypeError, ValueError, IndexError):
        raise DataError(
            f"{folder}/manifest.json is damaged; delete the folder and it is made again"
        ) from None
    return {split: _open_shard(folder, split, dtype, special, key) for split in SPLITS}, manifest


def _open_shard(folder: Path, split: str, dtype: np.dtype[Any], special: SpecialIds, key: str) -> Shard:
    path = folder / f"{split}.bin"
    count, rest = divmod(path.stat().st_size, dtype.itemsize)
    if rest:
        raise DataError(f"{path} is not a whole number of ids; delete {folder} and it is made again")
    entries = load_index(folder / f"{split}.npy", ENTRY, count)
    ids = np.memmap(path, dtype=dtype, mode="r") if count else np.zeros(0, dtype=dtype)
    return Shard(
        ids=ids,
        ends=entries["end"].astype(np.int64),
        document_bytes=entries["bytes"].astype(np.int64),
        special=special,
        key=f"{key}/{split}",
    )


def _batches(texts: Iterator[str]) -> Iterator[list[str]]:
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= BATCH_BYTES or len(batch) >= BATCH_DOCUMENTS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _packed(ids: list[int], dtype: np.dtype[Any], vocab_size: int) -> bytes:
    values = np.asarray(ids, dtype=np.int64)
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < vocab_size:
        raise TokenizerError(
            f"the tokenizer gave id {int(values.max())}, outside its vocabulary of {vocab_size}"
        )
    return values.astype(dtype).tobytes()


def _key(store: TextStore, tokenizer: Encoder, special: SpecialIds) -> str:
    """Corpus, framing ids, and the tokenizer: its vocabulary and what it makes of 256 kB of this corpus."""
    numbers = store.select("train")
    picks = np.unique(np.linspace(0, len(numbers) - 1, PROBES).astype(int))
    texts = [document.text[:PROBE_CHARACTERS] for document in store.read(numbers[picks].tolist())]
    encoded = tokenizer.encode_batch(texts)
    framing = (special.bos, special.eos, special.fim)
    vocabulary = [tokenizer.token_bytes(token).hex() for token in range(tokenizer.vocab_size)]
    parts = [FORMAT, store.manifest["key"], framing, vocabulary, encoded]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _manifest(
    store: TextStore, special: SpecialIds, dtype: np.dtype[Any], counts: NDArray[np.int64], key: str
) -> dict[str, Any]:
    manifest = {
        **json.loads(json.dumps(store.manifest)),
        "kind": KIND,
        "format": FORMAT,
        "key": key,
        "corpus_key": store.manifest["key"],
        "dtype": dtype.str,
        "special": {"bos": special.bos, "eos": special.eos, "fim": special.fim},
    }
    add_counts(manifest, store.index, "tokens", counts)
    return manifest
