"""Shards of token ids: memory-mapped files, one per split, checked by hash and used again while unchanged.

Files of a folder: `train.bin`, `heldout.bin` (ids of all documents one after the other, without special
tokens; uint16 or uint32, whichever the vocabulary needs), `train.npy`, `heldout.npy` (one ENTRY per
document), `manifest.json`.
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
    """Tokenizer interface for tokenizing a corpus; text never becomes special tokens."""

    @property
    def begin_ids(self) -> tuple[int, ...]: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    def encode_batch(self, texts: list[str], /) -> list[list[int]]: ...
    def special_id(self, spelling: str, /) -> int: ...
    def token_bytes(self, token_id: int, /) -> bytes: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """Special token ids of documents; `fim` is (begin, hole, end), or None without fill-in-the-middle.

    `bos` is None for a tokenizer that puts no begin token before a text: a document then follows the `eos` of
    the one before.
    """

    bos: int | None
    eos: int
    fim: tuple[int, int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Documents of one split as token ids; `key` identifies corpus, tokenizer and options together."""

    ids: NDArray[Any]  # (tokens,)
    ends: NDArray[np.int64]  # (documents,)
    document_bytes: NDArray[np.int64]  # (documents,) UTF-8 bytes
    special: SpecialIds
    key: str

    def __len__(self) -> int:
        return len(self.ends)

    def document(self, number: int) -> NDArray[Any]:
        """Ids of one document, without special tokens; a view of the file.  # (tokens,)"""
        start = int(self.ends[number - 1]) if number else 0
        return self.ids[start : int(self.ends[number])]


def special_ids(tokenizer: Encoder, *, fim: bool) -> SpecialIds:
    """Special token ids of `tokenizer`. Raises TokenizerError when one of them does not exist."""
    fim_ids = None
    if fim:
        try:
            begin, hole, end = (tokenizer.special_id(name) for name in FIM_TOKENS)
        except TokenizerError as error:
            raise TokenizerError(f"{error}, which filling in the middle needs; set data.fim_rate=0") from None
        fim_ids = (begin, hole, end)
    begin_ids = tokenizer.begin_ids
    return SpecialIds(bos=begin_ids[-1] if begin_ids else None, eos=tokenizer.eos_id, fim=fim_ids)


def tokenize(
    store: TextStore,
    tokenizer: Encoder,
    cache_dir: str | Path,
    *,
    special: SpecialIds,
    progress: Progress | None = None,
) -> Path:
    """Write the ids of `store` into a folder of `cache_dir`, or return the one that is there; bounded memory.

    Raises StorageError for a full disk and TokenizerError for ids outside the vocabulary.
    """
    key = _key(store, tokenizer, special)
    folder = Path(cache_dir) / f"shards-{key[:16]}"
    if folder.exists():
        return folder
    dtype = DTYPES["<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4"]
    total = int(store.sizes().sum())
    # An estimate: a token of text is 2 bytes or more on average.
    with new_folder(folder, needed_bytes=total * dtype.itemsize // 2) as partial:
        counts = np.zeros(len(store.index), dtype=np.int64)
        bytes_done = 0
        for split in SPLITS:
            documents = store.select(split)
            lengths = array("Q")
            with open(partial / f"{split}.bin", "wb") as out:
                for texts in _batches(store.texts(split)):
                    for ids in tokenizer.encode_batch(texts):
                        out.write(_id_bytes(ids, dtype, tokenizer.vocab_size))
                        lengths.append(len(ids))
                    bytes_done += sum(len(text.encode()) for text in texts)
                    if progress:
                        progress(bytes_done, total)
            counts[documents] = lengths
            entries = np.zeros(len(documents), dtype=ENTRY)
            entries["end"], entries["bytes"] = np.cumsum(counts[documents]), store.sizes()[documents]
            np.save(partial / f"{split}.npy", entries, allow_pickle=False)
        seal(partial, _manifest(store, special, dtype, counts, key))
    return folder


def open_shards(folder: Path) -> tuple[dict[str, Shard], dict[str, Any]]:
    """Shards of a folder by split, and its manifest. Raises DataError naming a damaged file."""
    names = tuple(f"{split}{suffix}" for split in SPLITS for suffix in (".bin", ".npy"))
    manifest = open_sealed(folder, kind=KIND, names=names)
    try:
        dtype = DTYPES[manifest["dtype"]]
        bos, fim = manifest["special"]["bos"], manifest["special"]["fim"]
        special = SpecialIds(
            bos=None if bos is None else int(bos),
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
        raise DataError(
            f"the size of {path} is not a whole number of ids; delete {folder} and it is made again"
        )
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


def _id_bytes(ids: list[int], dtype: np.dtype[Any], vocab_size: int) -> bytes:
    values = np.asarray(ids, dtype=np.int64)
    if len(values) and not 0 <= int(values.min()) <= int(values.max()) < vocab_size:
        raise TokenizerError(
            f"the tokenizer returned id {int(values.max())}, which is outside its vocabulary of {vocab_size}"
        )
    return values.astype(dtype).tobytes()


def _key(store: TextStore, tokenizer: Encoder, special: SpecialIds) -> str:
    """Hash of corpus, special ids and tokenizer: its vocabulary, and its ids for 256 kB of this corpus."""
    numbers = next(numbers for split in SPLITS if len(numbers := store.select(split)))
    picks = np.unique(np.linspace(0, len(numbers) - 1, PROBES).astype(int))
    texts = [document.text[:PROBE_CHARACTERS] for document in store.read(numbers[picks].tolist())]
    probe_ids = tokenizer.encode_batch(texts)
    framing = (special.bos, special.eos, special.fim)
    vocabulary = [tokenizer.token_bytes(token).hex() for token in range(tokenizer.vocab_size)]
    parts = [FORMAT, store.manifest["key"], framing, vocabulary, probe_ids]
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
