import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.data import loader as loading
from shoestring.data.loader import Loader
from shoestring.data.packing import Epoch
from shoestring.data.shards import Shard, SpecialIds
from shoestring.errors import ConfigError, DataError

SPECIAL = SpecialIds(bos=256, eos=257, fim=(258, 259, 260))


def shard_of(count=9, special=SPECIAL, key="test"):
    sizes = np.random.default_rng(1).integers(1, 40, size=count)
    ids = np.random.default_rng(2).integers(0, 256, size=sizes.sum()).astype(np.uint16)
    return Shard(ids=ids, ends=np.cumsum(sizes), document_bytes=sizes, special=special, key=key)


SHARD = shard_of()


def make(**changes):
    options = {"seq_len": 8, "batch_size": 4, "seed": 3, "fim_rate": 0.3, **changes}
    return Loader(options.pop("shard", SHARD), **options)


def take(loader, rows):
    return np.concatenate([loader.next_batch(n).inputs for n in rows])


def test_targets_are_inputs_shifted():
    loader = make()
    batch = next(loader)
    assert batch.inputs.shape == batch.targets.shape == (4, 8)
    assert batch.inputs.dtype == batch.targets.dtype == np.int64
    assert (batch.inputs[:, 1:] == batch.targets[:, :-1]).all()


def test_an_epoch_visits_every_row_of_the_stream_once_and_in_no_order():
    """A long document's rows come apart: batches of neighbors would be of one document."""
    loader = make()
    epoch = Epoch(loader.shard, seed=loader.seed, epoch=0, seq_len=loader.seq_len, fim_rate=loader.fim_rate)
    stream = [tuple(epoch.row(number)[:-1].tolist()) for number in range(epoch.num_rows)]
    visited = [tuple(row.tolist()) for row in loader.next_batch(epoch.num_rows).inputs]
    assert sorted(visited) == sorted(stream)
    assert visited != stream


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=6), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_stopped_anywhere_it_goes_on_with_the_same_stream(before, after):
    unbroken, first, resumed = make(), make(), make()
    for rows in before:
        first.next_batch(rows)
    resumed.load_state(json.loads(json.dumps(first.state())))
    whole = take(unbroken, [*before, *after])
    assert (take(resumed, after) == whole[sum(before) :]).all()
    assert resumed.state() == unbroken.state()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8))
def test_the_stream_does_not_depend_on_the_batch_sizes(sizes):
    assert (take(make(), sizes) == take(make(), [1] * sum(sizes))).all()


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([1, 2, 3, 4]), st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_ranks_together_read_what_one_would(world_size, shares):
    alone = make()
    ranks = [make(batch_size=world_size, rank=r, world_size=world_size) for r in range(world_size)]
    for share in shares:
        rows = share * world_size
        parts = [loader.next_batch(rows).inputs for loader in ranks]
        assert all(len(part) == share for part in parts)
        assert (np.concatenate(parts) == alone.next_batch(rows).inputs).all()
        assert all(loader.state() == alone.state() for loader in ranks)


def test_an_epoch_shows_every_document_and_the_next_another_order():
    loader = make(fim_rate=0.0)
    rows = loader.tokens_per_epoch // 8
    stream = take(loader, [rows]).ravel()
    assert loader.epoch == 1
    assert loader.row == 0
    assert np.count_nonzero(stream == SPECIAL.bos) == len(SHARD)
    assert len(SHARD.ids) + 2 * len(SHARD) - len(stream) <= 8
    assert (take(loader, [rows]).ravel() != stream).any()


def test_restoring_costs_one_epoch_table_however_far_it_was(monkeypatch):
    made = []

    class Counted(loading.Epoch):
        def __init__(self, *args, **kwargs):
            made.append(kwargs["epoch"])
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(loading, "Epoch", Counted)
    loader = make()
    loader.load_state({**loader.state(), "epoch": 1_000_000, "row": 2})
    next(loader)
    assert made == [1_000_000]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("seed", {"seed": 4}),
        ("seq_len", {"seq_len": 9}),
        ("fim_rate", {"fim_rate": 0.2}),
        ("shard", {"shard": shard_of(key="another")}),
    ],
)
def test_another_streams_state_is_refused_by_name(name, changes):
    with pytest.raises(DataError, match=f"{name} ="):
        make(**changes).load_state(make().state())


@pytest.mark.parametrize(
    "damage", [{"epoch": -1}, {"epoch": "0"}, {"row": 10**9}, {"row": -1}, {"row": None}, {"row": 1.5}]
)
def test_a_damaged_place_is_refused(damage):
    loader = make()
    with pytest.raises(DataError, match="saved loader"):
        loader.load_state({**loader.state(), **damage})
    assert loader.state() == make().state()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 5, "world_size": 2}, "does not divide"),
        ({"batch_size": 0}, "does not divide"),
        ({"rank": 2, "world_size": 2}, "rank = 2"),
        ({"seq_len": 0}, "seq_len = 0"),
        ({"seed": -1}, "seed = -1"),
        ({"fim_rate": 2.0}, "fim_rate = 2"),
        ({"shard": shard_of(special=SpecialIds(bos=1, eos=2, fim=None))}, "fim_rate"),
    ],
)
def test_wrong_arguments_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words):
        make(**changes)


def test_too_little_text_is_refused_with_the_way_out():
    with pytest.raises(DataError, match="lower seq_len"):
        make(shard=shard_of(1), seq_len=500)


def test_batch_of_the_wrong_size_is_refused_later_too():
    with pytest.raises(ConfigError, match="3 rows"):
        make(batch_size=2, world_size=2).next_batch(3)
