"""pass@k and maj@k against brute force over subsets, ties and draws."""

from collections import Counter
from fractions import Fraction
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.evals.estimators import Sample, best_at_k, maj_at_k, majority, pass_at_k

ROWS = st.lists(st.builds(Sample, st.booleans(), st.sampled_from(["a", "b", "c", None])), max_size=8)


def mean(values) -> Fraction:
    values = list(values)
    return Fraction(sum(values)) / len(values)


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_mean_over_all_subsets(right, data):
    k = data.draw(st.integers(1, len(right)))
    expected = mean(int(any(chosen)) for chosen in combinations(right, k))
    assert pass_at_k(len(right), sum(right), k) == expected


def test_pass_at_k_is_exact_for_large_counts():
    assert 0 < 1 - pass_at_k(128, 1, 127) == Fraction(1, 128)
    assert pass_at_k(128, 127, 2) == 1


@pytest.mark.parametrize(("samples", "right", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 0), (3, 1, 4)])
def test_pass_at_k_refuses_what_is_not_defined(samples, right, k):
    with pytest.raises(ValueError, match="not defined"):
        pass_at_k(samples, right, k)


@given(
    st.lists(st.tuples(st.sampled_from([0.5, 1.0, -2.0]), st.booleans()), min_size=1, max_size=8), st.data()
)
def test_best_at_k_is_the_mean_over_all_subsets_and_lots_for_ties(samples, data):
    k = data.draw(st.integers(1, len(samples)))

    def choice(subset) -> Fraction:
        best = max(score for score, _ in subset)
        return mean(int(is_right) for score, is_right in subset if score == best)

    assert best_at_k(samples, k) == mean(choice(subset) for subset in combinations(samples, k))


def test_best_at_k_follows_the_score_and_not_the_number_of_right_ones():
    samples = [(3.0, True), (2.0, False), (1.0, False), (0.0, False)]
    assert (best_at_k(samples, 4), best_at_k(samples, 1)) == (1, Fraction(1, 4))
    assert best_at_k([(-score, is_right) for score, is_right in samples], 4) == 0
    with pytest.raises(ValueError, match="not defined"):
        best_at_k(samples, 5)


@given(ROWS)
def test_majority_is_the_mean_over_lots_for_ties_and_for_the_sample(rows):
    counts = Counter(sample.vote for sample in rows if sample.vote is not None)
    leading = [vote for vote, count in counts.items() if count == max(counts.values())]
    by_vote = [[sample.is_right for sample in rows if sample.vote == vote] for vote in leading]
    expected = mean(mean(map(int, right)) for right in by_vote) if leading else Fraction(0)
    assert majority(rows) == expected


@given(ROWS, st.randoms())
def test_majority_does_not_look_at_what_is_right(rows, random):
    """Who wins is a matter of votes: with all answers of the winners right it is 1, whatever others are."""
    counts = Counter(sample.vote for sample in rows if sample.vote is not None)
    if counts:
        most = max(counts.values())
        won = [sample._replace(is_right=counts[sample.vote] == most) for sample in rows]
        random.shuffle(won)
        assert majority(won) == 1


def test_maj_at_k_is_the_mean_over_disjoint_blocks():
    rows = [Sample(vote == "a", vote) for vote in "aabbbaa"]
    assert maj_at_k(rows, 3) == Fraction(1, 2)
    assert maj_at_k(rows, 7) == 1
    assert maj_at_k(rows, 1) == Fraction(4, 7)
    with pytest.raises(ValueError, match="maj@8"):
        maj_at_k(rows, 8)
