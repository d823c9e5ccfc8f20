"""Generated programming problems: the references against results by hand, and what every problem has."""

import random
import re

import pytest

from shoestring.tasks import code_families
from shoestring.tasks.code import Code
from shoestring.tasks.code_families import CASES, FAMILIES, FIRST_STEPS, VISIBLE, draw

SOLVED = {
    "divisible": ({"k": 3}, [3, 4, -6, 9], "6"),
    "affine": ({"a": 2, "b": 1}, [1, -2], "3 -3"),
    "above": ({"k": 2}, [1, 2, 3, 9], "2"),
    "rotate": ({"k": 1}, [1, 2, 3], "2 3 1"),
    "window": ({"k": 2}, [1, 5, -3, 4, 4], "8"),
    "ranked": ({"k": 2}, [4, 9, 9, 1], "9"),
    "pairs": ({"k": 4}, [2, 2, 2, 1, 3], "4"),
    "remainders": ({"k": 3}, [3, 4, -1], [1, 1, 1]),
    "base": ({"base": 2}, 10, "1010"),
    "steps": ({"k": 2, "a": 3, "b": 1, "t": 3}, 6, "5"),
    "digits": ({"k": 2}, 123, "12"),
    "divisors": ({"k": 5}, 12, [1, 2, 3, 4]),
    "shift": ({"k": 2}, ["az", "b"], "cb d"),
    "count": ({"c": "a"}, ["aba", "a"], "3"),
    "long": ({"k": 4}, ["pear", "fig", "apple"], ["apple", "pear"]),
    "every": ({"k": 2}, ["a", "b", "c", "d"], "b d"),
    "replace": ({"c": "a", "d": "x"}, ["aba", "c"], "xbx c"),
}


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_references_give_what_a_person_would(family):
    values, value, expected = SOLVED[family.name]
    result = family.solve(value, **values)
    assert result == expected or str(result) == expected
    assert set(re.findall(r"\{(\w+)\}", family.text)) == set(family.choices)


def test_problems_are_complete_and_depend_on_their_key_alone():
    seen = {}
    for seed in range(3):
        rng = random.Random(seed)
        for _ in range(250):
            problem = draw(rng)
            assert seen.setdefault(problem.key, problem) == problem
            assert len(problem.cases) == CASES >= 12 - 2 * VISIBLE
            assert all(case.stdout.strip() and case.stdin.endswith("\n") for case in problem.cases)
            assert len({case.stdin for case in problem.cases}) == CASES
            assert len({case.stdout for case in problem.cases[VISIBLE:]}) > 1
            assert "{" not in problem.question
    kinds = {family.name for family in FAMILIES}
    assert len(kinds) >= 12
    assert all(any(kind in key for key in seen) for kind in kinds)
    assert all(step.name in " ".join(seen) for group in FIRST_STEPS.values() for step in group)


def test_splits_share_no_problem_and_seeds_reorder_them(monkeypatch):
    monkeypatch.setattr(Code, "prepare", lambda self: None)

    def keys(split, seed, count=200):
        return [e.key for e, _ in zip(Code().examples(split, seed), range(count), strict=False)]

    test = keys("test", 0)
    assert len(set(test)) == 200
    assert not set(test) & set(keys("train", 1, 600))
    assert keys("test", 0, 20) == keys("test", 0, 20) != keys("test", 1, 20)
    assert code_families.draw(random.Random(5)) == code_families.draw(random.Random(5))
