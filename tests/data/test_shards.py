import hashlib
import os

import numpy as np
import pytest

from shoestring.data import shards
from shoestring.data.corpus import DataConfig
from shoestring.data.shards import open_shards, special_ids, tokenize
from shoestring.data.textstore import prepare_corpus
from shoestring.errors import DataError, StorageError, TokenizerError


@pytest.fixture
def store(corpus_folder, tmp_path):
    return prepare_corpus(DataConfig(sources=(str(corpus_folder),), heldout_fraction=0.2), tmp_path / "cache")


def run(store, tokenizer, tmp_path, **options):
    special = special_ids(tokenizer, fim=True)
    return tokenize(store, tokenizer, tmp_path / "cache", special=special, **options)


def test_ids_decode_to_the_documents(store, tokenizer, tmp_path):
    found, manifest = open_shards(run(store, tokenizer, tmp_path))
    for split in ("train", "heldout"):
        shard, texts = found[split], list(store.texts(split))
        assert len(shard) == len(texts) > 0
        assert [bytes(shard.document(n).tolist()).decode() for n in range(len(shard))] == texts
        assert shard.document_bytes.tolist() == [len(text.encode()) for text in texts]
        assert manifest["totals"]["tokens"][split] == len(shard.ids)
    assert sum(f["tokens"]["train"] for f in manifest["files"]) == len(found["train"].ids)
    assert found["train"].ids.dtype == np.uint16
    assert found["train"].special.fim == (258, 259, 260)


def test_documents_have_no_begin_token_where_prompts_have_none(store, tokenizer, tmp_path, monkeypatch):
    before = run(store, tokenizer, tmp_path)
    monkeypatch.setattr(type(tokenizer), "begin_ids", ())
    folder = run(store, tokenizer, tmp_path)
    assert folder != before
    assert open_shards(folder)[0]["heldout"].special.bos is None


def test_a_large_vocabulary_takes_four_bytes(store, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "vocab_size", 70_000)
    monkeypatch.setattr(type(tokenizer), "encode_batch", lambda self, texts: [[69_999, 1] for _ in texts])
    found, _ = open_shards(run(store, tokenizer, tmp_path))
    assert found["train"].ids.dtype == np.uint32
    assert found["train"].document(3).tolist() == [69_999, 1]


def test_batches_stay_small_and_progress_reaches_the_end(store, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BATCH_DOCUMENTS", 7)
    sizes, calls, encode = [], [], type(tokenizer).encode_batch

    def counting(self, texts):
        sizes.append(len(texts))
        return encode(self, texts)

    monkeypatch.setattr(type(tokenizer), "encode_batch", counting)
    run(store, tokenizer, tmp_path, progress=lambda done, total: calls.append((done, total)))
    assert max(sizes[1:]) == 7  # the first call is the probe that makes the key
    assert calls == sorted(calls)
    assert calls[-1] == (store.sizes().sum(), store.sizes().sum())


def test_shards_are_reused_until_the_tokenizer_changes(store, tokenizer, tmp_path, monkeypatch):
    first = run(store, tokenizer, tmp_path)
    stamp = os.stat(first / "train.bin").st_mtime_ns
    assert run(store, tokenizer, tmp_path) == first
    assert os.stat(first / "train.bin").st_mtime_ns == stamp
    monkeypatch.setattr(type(tokenizer), "token_bytes", lambda self, token: b"%d" % token)
    second = run(store, tokenizer, tmp_path)
    monkeypatch.setattr(type(tokenizer), "encode_batch", lambda self, texts: [[1] for _ in texts])
    assert len({first, second, run(store, tokenizer, tmp_path)}) == 3


def test_a_corpus_may_be_all_held_out(tokenizer, tmp_path):
    texts = (f"document {number}" for number in range(10_000))
    text = next(text for text in texts if hashlib.sha256(text.encode()).digest()[0] == 0)
    (tmp_path / "one.txt").write_text(text)
    store = prepare_corpus(DataConfig(sources=(str(tmp_path / "one.txt"),)), tmp_path / "cache")
    assert (list(store.texts("train")), list(store.texts("heldout"))) == ([], [text])
    found, _ = open_shards(run(store, tokenizer, tmp_path))
    assert (len(found["train"]), len(found["heldout"])) == (0, 1)


def test_ids_outside_the_vocabulary_are_refused(store, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "encode_batch", lambda self, texts: [[261] for _ in texts])
    with pytest.raises(TokenizerError, match="id 261"):
        run(store, tokenizer, tmp_path)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [store.folder.name]


@pytest.mark.parametrize("name", ["train.bin", "heldout.bin", "train.npy", "heldout.npy"])
def test_a_truncated_or_foreign_shard_is_refused_by_name(store, tokenizer, tmp_path, name):
    folder = run(store, tokenizer, tmp_path)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-2])
    with pytest.raises(DataError, match=name):
        open_shards(folder)
    (folder / name).write_bytes(bytes(len(data)))
    with pytest.raises(DataError, match=name):
        open_shards(folder)


def test_a_corpus_folder_is_no_shard_folder(store):
    with pytest.raises(DataError, match="does not describe shoestring shards"):
        open_shards(store.folder)


def test_a_full_disk_names_folder_and_bytes(store, tokenizer, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"no room for .*cache.*bytes needed"):
        run(store, tokenizer, tmp_path)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [store.folder.name]


def test_ctrl_c_while_tokenizing_leaves_nothing(store, tokenizer, tmp_path):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(store, tokenizer, tmp_path, progress=interrupt)
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [store.folder.name]
