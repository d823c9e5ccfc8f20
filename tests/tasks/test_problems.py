"""Sets of problems: keys, the split that follows from them, and orders that a seed decides."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from shoestring.tasks.problems import in_order, split_of
from shoestring.tasks.task import Example, key_of

EXAMPLES = [Example(key=str(i), question=f"q{i}", answer=i) for i in range(20)]


@given(st.text())
def test_spacing_does_not_make_another_problem(question):
    assert key_of(f"  {question}\n") == key_of(question)
    assert len(key_of(question)) == 16


def test_about_one_in_ten_is_held_out():
    assert 70 < sum(split_of(key_of(f"question {i}")) == "test" for i in range(1000)) < 130
    assert 200 < sum(split_of(key_of(f"question {i}"), 4) == "test" for i in range(1000)) < 300


def test_training_problems_come_again_in_another_order_and_test_problems_once():
    train = list(islice(in_order(EXAMPLES, "train", 3), 40))
    assert sorted(e.answer for e in train[:20]) == sorted(e.answer for e in train[20:]) == list(range(20))
    assert train[:20] != train[20:]
    assert train == list(islice(in_order(EXAMPLES, "train", 3), 40))
    assert sorted(e.answer for e in in_order(EXAMPLES, "test", 3)) == list(range(20))
    assert list(in_order([], "train", 3)) == []
