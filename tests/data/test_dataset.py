import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.corpus import DataConfig
from shoestring.data.dataset import evaluation_rows, prepare
from shoestring.data.loader import Loader
from shoestring.data.packing import IGNORE_INDEX
from shoestring.data.shards import Shard, SpecialIds
from shoestring.errors import ConfigError, DataError

SPECIAL = SpecialIds(bos=256, eos=257, fim=None)


def shard_of(sizes, special=SPECIAL):
    ids = (np.arange(sum(sizes)) % 256).astype(np.uint16)
    return Shard(
        ids=ids, ends=np.cumsum(sizes), document_bytes=2 * np.array(sizes), special=special, key="test"
    )


def test_from_files_to_batches(corpus_folder, tmp_path, tokenizer):
    config = DataConfig(sources=(str(corpus_folder),), heldout_fraction=0.2)
    dataset = prepare(config, tokenizer, tmp_path / "cache")
    assert dataset.manifest["totals"]["tokens"]["train"] == len(dataset.train.ids)
    batch = next(Loader(dataset.train, seq_len=32, batch_size=2, seed=0))
    assert batch.inputs.shape == (2, 32)
    rows = evaluation_rows(dataset.heldout, seq_len=32)
    texts = list(dataset.store.texts("heldout"))
    assert rows.utf8_bytes == len("".join(texts).encode())
    read = [i for i in rows.targets.ravel().tolist() if i < 256 and i != IGNORE_INDEX]
    assert bytes(read).decode() == "".join(texts)
    assert prepare(config, tokenizer, tmp_path / "cache").train.key == dataset.train.key


def test_without_fim_no_fim_tokens_are_asked_for(corpus_folder, tmp_path, tokenizer, monkeypatch):
    monkeypatch.delattr(type(tokenizer), "special_id")
    dataset = prepare(DataConfig(sources=(str(corpus_folder),), fim_rate=0), tokenizer, tmp_path / "cache")
    assert dataset.train.special.fim is None


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(1, 20))
def test_each_held_out_token_is_predicted_once_from_the_one_before(sizes, seq_len):
    shard = shard_of(sizes)
    rows = evaluation_rows(shard, seq_len=seq_len)
    inputs, targets = rows.inputs.ravel(), rows.targets.ravel()
    want = [i for n in range(len(shard)) for i in [*shard.document(n).tolist(), SPECIAL.eos]]
    assert targets[targets != IGNORE_INDEX].tolist() == want
    assert rows.num_tokens == len(want)
    assert rows.utf8_bytes == 2 * sum(sizes)
    assert rows.inputs.shape == rows.targets.shape == (len(inputs) // seq_len, seq_len)
    firsts = np.cumsum([0, *[n + 1 for n in sizes[:-1]]])
    assert (inputs[targets != IGNORE_INDEX][firsts] == SPECIAL.bos).all()
    known = targets[:-1] != IGNORE_INDEX
    assert (inputs[1:][known] == targets[:-1][known]).all()


@given(st.lists(st.integers(0, 20), min_size=1, max_size=8), st.integers(1, 9))
def test_without_a_begin_token_each_document_follows_an_end_token(sizes, seq_len):
    shard = shard_of(sizes, SpecialIds(bos=None, eos=257, fim=None))
    rows = evaluation_rows(shard, seq_len=seq_len)
    inputs, targets = rows.inputs.flatten().tolist(), rows.targets.flatten().tolist()
    stream = [i for n in range(len(sizes)) for i in [*shard.document(n).tolist(), 257]]
    assert [target for target in targets if target != IGNORE_INDEX] == stream
    assert inputs[: len(stream)] == [257, *stream[:-1]]
    assert rows.num_tokens == len(stream)


def test_a_budget_takes_whole_documents_in_order():
    shard = shard_of([50, 9, 20, 9, 9])
    assert evaluation_rows(shard, seq_len=8, max_tokens=32).documents == (1, 2)
    assert evaluation_rows(shard, seq_len=8, max_tokens=42).documents == (1, 2, 3)
    small = evaluation_rows(shard, seq_len=8, max_tokens=5)
    assert small.documents == (1,)
    assert small.utf8_bytes == 18


def test_nothing_held_out_is_one_sentence():
    with pytest.raises(DataError, match="heldout_fraction"):
        evaluation_rows(shard_of([]), seq_len=8)
    with pytest.raises(ConfigError, match="seq_len = 0"):
        evaluation_rows(shard_of([3]), seq_len=0)
