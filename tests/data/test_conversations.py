"""Conversations in memory: padded batches, their order, and a resumable place in it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.conversations import MAX_PADDING, SPARE_TOKENS, Conversations, Order
from shoestring.errors import DataError


def made(lengths, **settings) -> Conversations:
    """Conversations of so many inputs, all ids different."""
    sizes = np.array(lengths) + 1
    return Conversations(
        ids=np.arange(sizes.sum(), dtype=np.int32),
        loss_mask=np.ones(sizes.sum(), dtype=np.bool_),
        ends=sizes.cumsum(),
        text_bytes=sizes,
        digests=np.arange(len(sizes), dtype=np.uint64) * 7919 % 1009,
        manifest={},
        turn_ends=(),
        **settings,
    )


LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=40)


@given(LENGTHS, st.integers(1, 200))
def test_batches_hold_everything_once_with_little_padding(lengths, tokens):
    data = made(lengths)
    seen = []
    for batch in data.batches(range(len(lengths)), tokens):
        rows, width = batch.inputs.shape
        assert rows == 1 or rows * width <= tokens
        real = batch.targets >= 0
        assert (~real).sum() <= max(MAX_PADDING * real.size, SPARE_TOKENS)
        assert (batch.targets[real] == batch.inputs[real] + 1).all()
        assert (np.diff(real.astype(int), axis=1) <= 0).all()  # padding on the right only
        assert not batch.loss_mask[~real].any()
        seen += batch.inputs[real].tolist()
    assert sorted(seen) == sorted(set(data.ids.tolist()) - set((data.ends - 1).tolist()))


@given(LENGTHS, st.integers(1, 150), st.integers(0, 60), st.integers(0, 5))
def test_the_order_gives_everything_once_an_epoch_and_resumes_anywhere(lengths, tokens, stop, seed):
    data, numbers = made(lengths), list(range(len(lengths)))
    order = Order(data, numbers, seed=seed)
    taken, states = [], []
    while order.epoch < 2:
        states.append((len(taken), order.state()))
        taken += order.take(tokens)
    for epoch in range(2):
        assert sorted(taken[epoch * len(numbers) :][: len(numbers)]) == numbers
    at, state = states[stop % len(states)]
    again = Order(data, numbers, seed=seed)
    again.load_state(json.loads(json.dumps(state)))
    rest = []
    while len(rest) < len(taken) - at:
        rest += again.take(tokens)
    assert rest == taken[at:]


def test_batches_come_out_as_large_as_asked_on_average():
    data = made(np.random.default_rng(0).integers(1, 60, 5000))
    order = Order(data, range(5000), seed=1)
    sizes = [int(data.lengths[order.take(500)].sum()) for _ in range(100)]
    assert abs(np.mean(sizes) - 500) < 5
    assert max(abs(np.array(sizes) - 500)) <= 30


def test_many_conversations_come_in_runs_of_similar_length():
    lengths = np.random.default_rng(0).integers(1, 400, 10_000)
    data = made(lengths)
    order = Order(data, range(len(lengths)), seed=1)
    taken, padded, used = [], 0, 0
    while order.epoch == 0:
        step = order.take(4000)
        batches = list(data.batches(step, 100_000))
        padded += sum(batch.inputs.size for batch in batches)
        used += sum(int((batch.targets >= 0).sum()) for batch in batches)
        taken += step
    assert sorted(taken[: len(lengths)]) == list(range(len(lengths)))
    assert padded / used < 1.1
    first, second = lengths[taken[:5000]], lengths[taken[5000:10_000]]
    assert abs(first.mean() - second.mean()) < 40  # long and short ones all through the epoch


def test_a_state_of_other_data_is_refused():
    state = Order(made([3, 4]), [0, 1], seed=0).state()
    for other in (Order(made([3, 4, 5]), [0, 1], seed=0), Order(made([3, 4]), [0, 1], seed=1)):
        with pytest.raises(DataError, match="changed since the run was saved"):
            other.load_state(state)


WEIGHTS = st.sampled_from([(2.0, 0.5), (0.1, 0.3), (1.0, 3.3)])


@given(LENGTHS, st.integers(0, 60), WEIGHTS)
def test_a_mixture_has_its_weights_and_resumes_anywhere(lengths, stop, weights):
    source_of = np.arange(len(lengths)) % 2
    data = made(lengths, source_of=source_of, weights=weights)
    order = Order(data, range(len(lengths)), seed=3)
    by_hand = sum(weights[number % 2] * length for number, length in enumerate(lengths))
    assert abs(order.tokens_per_epoch - by_hand) <= 1
    taken, states = [], []
    while order.epoch < 20:
        states.append((len(taken), order.state()))
        taken += order.take(1)
    counts = np.bincount(taken, minlength=len(lengths))
    for source, weight in enumerate(weights):
        own = counts[source_of == source]
        if len(own):
            assert own.max() - own.min() <= 1
            assert abs(own.sum() - 20 * weight * len(own)) <= 1
    at, state = states[stop % len(states)]
    again = Order(data, range(len(lengths)), seed=3)
    again.load_state(json.loads(json.dumps(state)))
    rest = []
    while again.epoch < 20:
        rest += again.take(1)
    assert rest == taken[at:]
