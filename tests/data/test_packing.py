import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.packing import Epoch, fill_in_the_middle, frame
from shoestring.data.shards import Shard, SpecialIds
from shoestring.errors import ConfigError

SPECIAL = SpecialIds(bos=256, eos=257, fim=(258, 259, 260))
lengths = st.lists(st.integers(0, 30), min_size=1, max_size=12)


def shard_of(sizes, special=SPECIAL):
    """Document n holds the ids n, n, n..., so that a stream shows where each id came from."""
    ids = np.repeat(np.arange(len(sizes)), sizes).astype(np.uint16)
    ends = np.cumsum(sizes)
    return Shard(ids=ids, ends=ends, document_bytes=np.array(sizes), special=special, key="test")


def flat(segments):
    return [int(i) for segment in segments for i in segment]


@given(st.lists(st.integers(0, 255), max_size=40), st.integers(0, 2**32))
def test_fill_in_the_middle_is_a_rearrangement(ids, seed):
    out = flat(fill_in_the_middle(np.array(ids, dtype=np.uint16), SPECIAL, np.random.default_rng(seed)))
    assert out[:2] == [256, 258]
    assert out[-1] == 257
    hole, end = out.index(259), out.index(260)
    prefix, suffix, middle = out[2:hole], out[hole + 1 : end], out[end + 1 : -1]
    assert prefix + middle + suffix == ids


def test_every_cut_can_happen():
    generator = np.random.default_rng(0)
    seen = {tuple(flat(fill_in_the_middle(np.array([7, 8]), SPECIAL, generator))) for _ in range(300)}
    assert len(seen) == 6  # 0 <= first <= second <= 2


def test_fill_in_the_middle_needs_its_tokens():
    special = SpecialIds(bos=1, eos=2, fim=None)
    with pytest.raises(ConfigError, match="fim_rate=0"):
        fill_in_the_middle(np.array([5]), special, np.random.default_rng(0))


def whole_stream(epoch, shard, special=SPECIAL):
    """The stream built the plain way: every document framed, in order, one after the other."""
    out = []
    for n in epoch.order.tolist():
        if epoch.fim_mask[n]:
            generator = np.random.default_rng([epoch.seed, epoch.epoch, n + 1])
            out += flat(fill_in_the_middle(shard.document(n), special, generator))
        else:
            out += flat(frame(shard.document(n), special))
    return out


@given(lengths, st.integers(1, 17), st.integers(0, 5), st.sampled_from([0.0, 0.3, 1.0]))
def test_rows_are_cuts_of_the_concatenated_stream(sizes, seq_len, seed, fim_rate):
    shard = shard_of(sizes)
    epoch = Epoch(shard, seed=seed, epoch=seed % 3, seq_len=seq_len, fim_rate=fim_rate)
    stream = whole_stream(epoch, shard)
    assert epoch.num_rows == (len(stream) - 1) // seq_len
    for number in reversed(range(epoch.num_rows)):  # any order: each row stands alone
        start = number * seq_len
        assert epoch.row(number).tolist() == stream[start : start + seq_len + 1]


@given(lengths, st.integers(1, 17), st.sampled_from([0.0, 0.3, 1.0]))
def test_rows_without_a_begin_token(sizes, seq_len, fim_rate):
    special = SpecialIds(bos=None, eos=257, fim=(258, 259, 260))
    shard = shard_of(sizes, special)
    epoch = Epoch(shard, seed=1, epoch=0, seq_len=seq_len, fim_rate=fim_rate)
    stream = whole_stream(epoch, shard, special)
    assert 256 not in stream
    assert epoch.ends[-1] == len(stream)
    for number in range(epoch.num_rows):
        assert epoch.row(number).tolist() == stream[number * seq_len :][: seq_len + 1]


def test_epochs_and_seeds_shuffle_differently_and_repeat_exactly():
    shard = shard_of([5] * 50)

    def order(seed, epoch):
        return Epoch(shard, seed=seed, epoch=epoch, seq_len=8, fim_rate=0.1).order.tolist()

    assert sorted(order(0, 0)) == list(range(50))
    assert len({tuple(order(s, e)) for s in range(3) for e in range(3)}) == 9
    assert order(1, 2) == order(1, 2)


def test_the_rate_is_the_share_of_rearranged_documents():
    epoch = Epoch(shard_of([3] * 20_000), seed=0, epoch=0, seq_len=8, fim_rate=0.1)
    assert 0.093 < epoch.fim_mask.mean() < 0.107  # 3 standard deviations


def test_no_documents_give_no_rows():
    assert Epoch(shard_of([]), seed=0, epoch=0, seq_len=8, fim_rate=0.1).num_rows == 0
