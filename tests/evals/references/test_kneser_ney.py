from collections import Counter, defaultdict

import numpy as np
import pytest

from shoestring.errors import DataError
from shoestring.evals.references.kneser_ney import FALLBACK, Stream, count, probabilities, stream

V, BEGIN, END = 7, 0, 1


class Dictionaries:
    """The same model written from the paper with dictionaries of tuples: slow, and one n-gram at a time."""

    def __init__(self, documents: list[list[int]], order: int) -> None:
        rows = [(BEGIN, *document, END) for document in documents]
        grams = [
            Counter(row[i : i + n] for row in rows for i in range(len(row) - n + 1)) for n in range(order + 1)
        ]
        self.counts: list[dict[tuple[int, ...], int]] = [{}]
        for n in range(1, order + 1):
            if n == order:
                self.counts.append(dict(grams[n]))
                continue
            before = defaultdict(set)
            for gram in grams[n + 1]:
                before[gram[1:]].add(gram[0])
            starts = Counter(row[:n] for row in rows if len(row) >= n) if n > 1 else Counter()
            self.counts.append({gram: len(before[gram]) + starts[gram] for gram in grams[n]})
        self.discounts = [self.of_counts(list(level.values())) for level in self.counts]

    @staticmethod
    def of_counts(counts: list[int]) -> list[float]:
        n = [counts.count(times) for times in range(5)]
        if not all(n[1:]):
            return list(FALLBACK)
        share = n[1] / (n[1] + 2 * n[2])
        found = [times - (times + 1) * share * n[times + 1] / n[times] for times in (1, 2, 3)]
        return [0, *found] if min(found) > 0 else list(FALLBACK)

    def probability(self, context: tuple[int, ...], word: int) -> float:
        level = len(context) + 1
        lower = self.probability(context[1:], word) if context else 1 / V
        row = {gram[-1]: times for gram, times in self.counts[level].items() if gram[:-1] == context}
        if not sum(row.values()):
            return lower
        taken = {last: self.discounts[level][min(times, 3)] for last, times in row.items()}
        own = row.get(word, 0) - taken.get(word, 0)
        return (own + sum(taken.values()) * lower) / sum(row.values())


@pytest.fixture(scope="module")
def documents() -> list[list[int]]:
    generator = np.random.default_rng(3)
    return [
        generator.choice(np.arange(2, V), size, p=[0.5, 0.2, 0.15, 0.1, 0.05]).tolist() for size in range(40)
    ]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_it_is_the_model_of_the_paper(documents, order):
    slow = Dictionaries(documents[:-6], order)
    levels = count(stream(map(np.array, documents[:-6]), BEGIN, END), V, order)
    scored = stream(map(np.array, documents[-6:]), BEGIN, END)
    found = probabilities(levels, scored, V)
    expected = []
    for document in documents[-6:]:
        row = (BEGIN, *document, END)
        expected += [slow.probability(row[max(i - order + 1, 0) : i], row[i]) for i in range(1, len(row))]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_probabilities_of_all_ids_sum_to_one(documents):
    levels = count(stream(map(np.array, documents), BEGIN, END), V, 4)
    for context in ([], [2], [2, 3, 2], [6, 6, 6, 6], [5, 4, 6]):
        places = np.arange(len(context) + 2)
        streams = (Stream(np.array([BEGIN, *context, word]), places) for word in range(V))
        last = [probabilities(levels, each, V)[-1] for each in streams]
        assert sum(last) == pytest.approx(1, abs=1e-12)


def test_longer_contexts_help_where_they_tell_something():
    row = np.array([2, 3, 4, 2, 3, 5] * 50)
    scored = stream([row[:60]], BEGIN, END)
    bits = [
        -np.log2(probabilities(count(stream([row, row], BEGIN, END), V, order), scored, V)).mean()
        for order in (1, 2, 4)
    ]
    assert bits[0] > 2 * bits[1] > 6 * bits[2]


def test_without_text_there_is_nothing_to_count():
    with pytest.raises(DataError, match="no text"):
        stream([], BEGIN, END)
