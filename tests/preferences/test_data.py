"""Units, their batches and the order of these; KTO's mismatched answers."""

import numpy as np
import pytest
import torch

from shoestring.data.packing import IGNORE_INDEX
from shoestring.errors import DataError
from shoestring.preferences.data import Batches, EncodedAnswer, Preferences, cut, mismatched

CPU = torch.device("cpu")


def answer(prompt: list[int], reply: list[int], is_chosen: bool = True) -> EncodedAnswer:
    mask = [False] * len(prompt) + [True] * len(reply)
    return EncodedAnswer(
        ids=np.array(prompt + reply, dtype=np.int32),
        loss_mask=np.array(mask),
        prompt_tokens=len(prompt),
        is_chosen=is_chosen,
    )


def pairs(count: int) -> Preferences:
    """Pairs with prompts of 2 ids, chosen answers of 1 to 4, rejected ones of 2."""
    answers = []
    for i in range(count):
        answers += [answer([1, 100 + i // 2], [7] * (1 + i % 4)), answer([1, 100 + i // 2], [8, 8], False)]
    return Preferences(answers, [(2 * i, 2 * i + 1) for i in range(count)], {}, ())


def test_a_batch_has_the_chosen_answers_first():
    data = pairs(3)
    (batch,) = data.batches([0, 1, 2], 1000, CPU)
    assert batch.numbers == [4, 0, 2, 5, 1, 3]  # by the length of the longer answer
    assert batch.is_chosen_B.tolist() == [True] * 3 + [False] * 3
    assert batch.tokens_B.tolist() == [3, 1, 2, 2, 2, 2]
    row = batch.rows
    assert row.inputs_BT[0].tolist() == [1, 101, 7, 7]
    assert row.targets_BT[1].tolist() == [100, 7, IGNORE_INDEX, IGNORE_INDEX]
    assert row.labels_BT[0].tolist() == [IGNORE_INDEX, 7, 7, 7]


@pytest.mark.parametrize("tokens", [1, 12, 20, 1000])
def test_micro_batches_hold_every_pair_once_within_the_limit(tokens):
    data = pairs(9)
    batches = list(data.batches(range(9), tokens, CPU))
    assert sorted(number for batch in batches for number in batch.numbers) == list(range(18))
    for batch in batches:
        assert batch.rows.inputs_BT.numel() <= max(tokens, 2 * batch.rows.inputs_BT.shape[1])
        half = len(batch.numbers) // 2
        assert [n + 1 for n in batch.numbers[:half]] == batch.numbers[half:]


def test_every_epoch_has_all_units_in_batches_of_nearly_one_size():
    batches = Batches(range(10, 27), 4, seed=3)
    assert sorted(map(len, batches.all)) == [3, 3, 3, 4, 4]
    epochs = [[batches.of_step(5 * epoch + place) for place in range(5)] for epoch in range(3)]
    assert all(sorted(unit for batch in epoch for unit in batch) == list(range(10, 27)) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert all(sorted(map(tuple, epoch)) == sorted(map(tuple, batches.all)) for epoch in epochs)
    assert Batches(range(10, 27), 4, seed=3).of_step(11) == batches.of_step(11)
    assert Batches(range(10, 27), 4, seed=4).all != batches.all


@pytest.mark.parametrize(
    ("count", "size", "least", "expected"),
    [(9, 8, 1, [5, 4]), (3, 2, 1, [2, 1]), (3, 2, 2, [3]), (5, 2, 2, [3, 2]), (1, 4, 2, [1]), (0, 4, 1, [])],
)
def test_parts_are_of_one_size_and_kto_s_never_of_one_answer(count, size, least, expected):
    assert [len(part) for part in cut(list(range(count)), size, least)] == expected


def test_a_prompt_is_on_one_side():
    data = pairs(40)
    train, heldout = data.split(0.2)
    assert sorted(train + heldout) == list(range(40))
    assert 4 <= len(heldout) <= 14
    assert not {unit // 2 for unit in train} & {unit // 2 for unit in heldout}
    assert data.split(0.0) == (list(range(40)), [])
    with pytest.raises(DataError, match="heldout_fraction"):
        pairs(2).split(0.9)


def test_mismatched_answers_are_those_of_the_unit_before():
    answers = [answer([1, n], [10 * n] * n) for n in (2, 3, 4)]
    data = Preferences(answers, [(0,), (1,), (2,)], {}, ())
    others = mismatched(data, [0, 2, 1])
    assert [each.ids.tolist() for each in others] == [
        [1, 2, 30, 30, 30],
        [1, 4, 20, 20],
        [1, 3, 40, 40, 40, 40],
    ]
    assert all(each.loss_mask.tolist() == [False] * 2 + [True] * (len(each.ids) - 2) for each in others)


def test_the_key_sees_ids_masks_and_labels():
    one = Preferences([answer([1], [2]), answer([1], [3], False)], [(0, 1)], {}, ())
    other = Preferences([answer([1], [2]), answer([1], [3])], [(0, 1)], {}, ())
    shifted = Preferences([answer([1], [2]), answer([1, 3], [], False)], [(0, 1)], {}, ())
    assert len({one.key, other.key, shifted.key}) == 3
