"""Mixtures: how often each source is drawn, by seed and epoch alone."""

from collections import Counter

import numpy as np
import pytest

from shoestring.data.chat.mixture import DataSource, draw, sources
from shoestring.errors import ConfigError

NUMBERS = np.arange(30)
SOURCE = np.repeat([0, 1, 2], 10)


def epochs(weights, count=10, seed=0):
    return [draw(NUMBERS, SOURCE, weights, seed=seed, epoch=epoch) for epoch in range(count)]


@pytest.mark.parametrize("weights", [(1.0, 2.0, 0.5), (0.3, 1.0, 3.7), (0.01, 5.0, 0.99)])
def test_over_epochs_each_source_comes_as_often_as_its_weight(weights):
    totals = Counter(np.concatenate(epochs(weights, 100)).tolist())
    for source, weight in enumerate(weights):
        counts = [totals[number] for number in NUMBERS[source == SOURCE]]
        assert sum(counts) == round(100 * weight * 10)
        assert max(counts) - min(counts) <= 1  # nothing comes again before all others came


def test_each_epoch_has_its_share():
    for epoch in epochs((1.0, 2.0, 0.5)):
        assert Counter(SOURCE[epoch].tolist()) == {0: 10, 1: 20, 2: 5}
        assert (np.diff(epoch) >= 0).all()
    assert Counter(np.concatenate(epochs((1.0, 1.0, 0.5), 2)).tolist()) == {
        **dict.fromkeys(range(20), 2),
        **dict.fromkeys(range(20, 30), 1),
    }


def test_the_seed_decides_which():
    one, same, other = (epochs((1.0, 1.0, 0.5), 3, seed) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_name_alone_is_a_source_and_wrong_ones_are_refused():
    assert sources(["a.jsonl", DataSource(path="b", weight=2)]) == [
        DataSource(path="a.jsonl"),
        DataSource(path="b", weight=2.0),
    ]
    own, other = sources([DataSource(path="a", columns={"prompt": "q"}), "b"], {"prompt": "ask"})
    assert (own.columns, other.columns) == ({"prompt": "q"}, {"prompt": "ask"})
    wrong = [{"path": "a", "weight": weight} for weight in (0.0, -1.0, float("nan"), 1e6)]
    for settings in (*wrong, {"path": ""}, {"path": "a", "columns": {"nope": "x"}}):
        with pytest.raises(ConfigError):
            DataSource(**settings)
