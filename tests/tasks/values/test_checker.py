"""Outputs and results are compared as public judges do: each rule, and what comes close to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.tasks.values.checker import same_output, same_result


@pytest.mark.parametrize("wrong", ["a\nb\n\n", "a", "a\nb ", "a\r\nb\n", "", "\na\nb", "a\nb\0"])
def test_strict_forgives_the_last_newline_only(wrong):
    assert same_output("a\nb", "a\nb\n", is_strict=True)
    assert same_output("a\nb\n", "a\nb", is_strict=True)
    assert not same_output(wrong, "a\nb\n", is_strict=True)


@pytest.mark.parametrize(
    ("text", "right", "is_same"),
    [
        ("2", 2, True), ("2.0", 2, True), ('[1, {"a": null}]', [1, {"a": None}], True), ("true", True, True),
        ("true", 1, False), ("1", True, False), ('"2"', 2, False), ("[true]", [1], False), ("[1]", 1, False),
        ("NaN", float("nan"), False), ("Infinity", float("inf"), False), ("", 0, False), ("1 1", 1, False),
        ("9" * 5000, 9, False), ("[" * 50_000 + "]" * 50_000, [], False), ('{"a": 1}', {"b": 1}, False),
        ("0.30000000000000004", 0.3, True), ("[0.1, 1e-7]", [0.1, 2e-7], False), ("1000001", 1000000, False),
        ("1000000.5", 1000000, False), ("1e999", 1.5, False),
        ("9" * 5000, 1.5, False), ("2", 2.0000001, True),
        ("null", 0, False), ("false", None, False), ('"a "', "a", False),
    ],
)  # fmt: skip
def test_values_are_equal_with_their_types(text, right, is_same):
    assert same_result(text, right) == is_same


def test_strict_results_are_equal_to_the_last_bit():
    assert not same_result("0.30000000000000004", 0.3, is_strict=True)
    assert same_result("[2.0, 0.3]", [2, 0.3], is_strict=True)


@given(st.text(), st.text())
def test_comparing_is_total_and_reflexive(printed, right):
    assert same_output(right, right)
    assert same_output(printed, right) in (True, False)
    assert same_result(printed, right) in (True, False)


@given(st.lists(st.lists(st.sampled_from(["a", "1", "2.5", "x=3"]), min_size=1), min_size=1))
def test_spaces_between_words_and_at_ends_do_not_count(lines):
    right = "\n".join(" ".join(line) for line in lines)
    assert same_output("\r\n".join("  ".join(line) + " \t" for line in lines) + "\n\n", right)
    assert not same_output(right + "\n0", right)
