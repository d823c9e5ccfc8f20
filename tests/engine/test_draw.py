"""What is left of a distribution, and the token a number chooses: against plain Python."""

import math
from collections import Counter

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

from shoestring import kernels
from shoestring.engine import draw

W = 7
LOGITS = st.lists(st.integers(-6, 6).map(lambda i: i / 2), min_size=W, max_size=W)


def probabilities(logits: list[float]) -> list[float]:
    return torch.tensor(logits, dtype=torch.float64).softmax(-1).tolist()


def kept(row: torch.Tensor, nothing: float) -> set[int]:
    return {i for i, value in enumerate(row.tolist()) if value != nothing}


@given(st.lists(LOGITS, min_size=1, max_size=4), st.lists(st.integers(-1, 9), min_size=4, max_size=4))
def test_top_k(rows, limits):
    limits = limits[: len(rows)]
    got = draw.keep_top_k(torch.tensor(rows), torch.tensor(limits))
    for row, k, out in zip(rows, limits, got, strict=True):
        least = sorted(row, reverse=True)[k - 1] if 0 < k < W else -math.inf
        assert kept(out, -math.inf) == {i for i, value in enumerate(row) if value >= least}


@given(st.lists(LOGITS, min_size=1, max_size=4), st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_top_p(rows, shares):
    shares = shares[: len(rows)]
    probability = torch.tensor([probabilities(row) for row in rows], dtype=torch.float64)
    got = draw.keep_top_p(probability, torch.tensor(shares, dtype=torch.float64))
    for row, share, out in zip(probability.tolist(), shares, got, strict=True):
        left = kept(out, 0.0)
        mass = math.fsum(row[i] for i in left)
        assert mass >= share - 1e-12
        assert min(row[i] for i in left) >= max([row[i] for i in range(W) if i not in left], default=0)
        least = min(row[i] for i in left)
        assert mass - math.fsum(row[i] for i in left if row[i] == least) < share + 1e-12, "fewer would do"


def test_top_p_beyond_the_first_candidates():
    width = 5000
    probability = torch.full((2, width), 1 / width, dtype=torch.float64)
    probability[:, 7] = 2 / width
    probability[1] = torch.linspace(1, 2, width, dtype=torch.float64)
    got = draw.keep_top_p(probability, torch.tensor([0.9, 0.9], dtype=torch.float64))
    assert (got[0] > 0).all(), "equals of the last one stay"
    order = probability[1].sort(descending=True).values
    needed = int((order.cumsum(-1) - order < 0.9 * order.sum()).sum())
    assert int((got[1] > 0).sum()) == needed > draw.NUCLEUS_CANDIDATES


@given(LOGITS, st.floats(0, 1))
def test_min_p(row, share):
    values = probabilities(row)
    got = draw.keep_min_p(torch.tensor([values], dtype=torch.float64), torch.tensor([share]).double())[0]
    bound = torch.tensor(share).double().item() * max(values)
    assert kept(got, 0.0) == {i for i, value in enumerate(values) if value >= bound}


@given(
    LOGITS,
    st.lists(st.integers(0, W - 1), max_size=8),
    st.lists(st.integers(0, W - 1), max_size=8),
    st.tuples(st.floats(0.5, 2), st.floats(-2, 2), st.floats(-2, 2)),
)
def test_penalties(logits, output, prompt, penalties):
    repetition, frequency, presence = penalties
    counts, wanted = Counter(output), []
    for token, logit in enumerate(logits):
        if token in counts or token in prompt:
            logit = logit / repetition if logit > 0 else logit * repetition
        wanted.append(logit - frequency * counts[token] - presence * (token in counts))
    seen = torch.zeros(1, W, dtype=torch.bool)
    seen[0, prompt] = True
    counted = torch.tensor([[float(counts[token]) for token in range(W)]])
    got = draw.penalize(torch.tensor([logits]), counted, seen, torch.tensor([penalties]))
    torch.testing.assert_close(got[0], torch.tensor(wanted), rtol=1e-5, atol=1e-5)


@given(
    st.lists(st.sampled_from([0.0, 0.1, 0.5, 2.0]), min_size=W, max_size=W), st.floats(0, 1, exclude_max=True)
)
def test_pick_inverts_the_cumulated_probabilities(weights, number):
    if not any(weights):
        weights[3] = 1.0
    chosen = int(draw.pick(torch.tensor([weights]).double(), torch.tensor([number]).double())[0])
    assert weights[chosen] > 0
    total = sum(weights)
    assert sum(weights[:chosen]) <= number * total + 1e-9
    assert sum(weights[: chosen + 1]) >= number * total - 1e-9


@pytest.mark.parametrize("number", [0.0, 1 - 2**-53])
def test_the_ends_of_the_unit_interval_choose_possible_tokens(number):
    weights = torch.tensor([[0.0, 1e-30, 1.0, 0.3, 1e-30, 0.0]], dtype=torch.float64)
    assert int(draw.pick(weights, torch.tensor([number]).double())[0]) in (1, 2, 3, 4)


def test_equal_steps_choose_in_proportion():
    weights = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    numbers = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    chosen = draw.pick(weights.expand(1000, 4).contiguous(), numbers)
    assert chosen.bincount(minlength=4).tolist() == [100, 0, 600, 300]


def test_the_numbers_are_the_seeds_and_nothing_elses():
    assert draw.uniform(1, 2) == draw.uniform(1, 2)
    assert draw.uniform(-1, 0) == draw.uniform(2**64 - 1, 0)
    assert len({draw.uniform(seed, index) for seed in range(100) for index in range(100)}) == 10_000
    assert draw.uniform(7, 0) == 0.7283479541790344, "a change here changes every seeded answer"
    numbers = kernels.uniform_numbers(torch.tensor([7, -1]), torch.tensor([0, 5]))
    assert numbers.tolist() == [draw.uniform(7, 0), draw.uniform(2**64 - 1, 5)]


def test_the_numbers_are_uniform():
    """Kolmogorov and Smirnov over seeds and over indices, at one in a million; neighbors are unrelated."""
    count = 20_000
    for numbers in (
        [draw.uniform(seed, 0) for seed in range(count)],
        [draw.uniform(5, index) for index in range(count)],
    ):
        ordered = sorted(numbers)
        distance = max(abs(value - place / count) for place, value in enumerate(ordered))
        assert distance < 2.7 / math.sqrt(count)
        pairs = torch.tensor([numbers[:-1], numbers[1:]])
        assert abs(torch.corrcoef(pairs)[0, 1].item()) < 5 / math.sqrt(count)


def test_only_some_tokens_stay():
    logits = torch.arange(6.0)
    draw.keep_tokens(logits, [4, 1, 1])
    assert logits.tolist() == [-math.inf, 1.0, -math.inf, -math.inf, 4.0, -math.inf]


@pytest.mark.parametrize(
    ("output", "banned"),
    [([], {5}), ([1], {5, 2}), ([1, 2], {5, 3}), ([2], {5}), ([9, 1, 2], {5, 3}), ([1, 2, 3], {5})],
)
def test_the_last_token_of_a_bad_word_is_banned_behind_its_others(output, banned):
    logits = torch.zeros(10)
    draw.ban_words(logits, output, [[5], [1, 2], [1, 2, 3]])
    assert {i for i, value in enumerate(logits.tolist()) if value == -math.inf} == banned


@pytest.mark.parametrize("count", [0, 1, 3, -1, 50])
def test_the_likeliest_tokens_and_ranks(count):
    logp_MW = torch.randn(4, 9, generator=torch.Generator().manual_seed(count + 2)).log_softmax(-1)
    ids = [0, 3, 8, 3]
    for logp_W, own, entry in zip(
        logp_MW.tolist(), ids, draw.likeliest(logp_MW, ids, [count] * 4), strict=True
    ):
        order = sorted(range(9), key=lambda i: -logp_W[i])
        top = order if count < 0 else order[:count]
        assert set(entry) == {own, *top}
        assert next(iter(entry)) == own
        assert all(entry[i] == (logp_W[i], order.index(i) + 1) for i in entry)
