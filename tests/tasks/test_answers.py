"""Replies are parted and arithmetic read exactly, whatever a model writes, in linear time."""

import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.tasks.answers import Reply, evaluate, numbers_in, split_reply

TAGS = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    "\\boxed{",
    "{",
    "}",
    "####",
    "$",
    ",",
    "%",
    "/",
    "-",
    "\n",
]
replies = st.lists(st.sampled_from(TAGS) | st.text(max_size=8) | st.integers().map(str)).map("".join)


@pytest.mark.parametrize(
    ("text", "thinking", "answer"),
    [
        ("<think>a</think> b ", "a", "b"),
        ("b", None, "b"),
        ("a</think>b", "a", "b"),
        ("<think>a", "a", ""),
        ("", None, ""),
        ("<think>a</think>", "a", ""),
        ("<think>a</think>b</think>c", "a</think>b", "c"),
        ("<think>a</think>b<think>c", "a</think>b<think>c", ""),
        ("<think>a</think>x <answer> 5 </answer> y", "a", "5"),
        ("<answer>4</answer><answer>5</answer>", None, "5"),
        ("<answer>4</answer><answer>5", None, "4"),
        ("<answer><answer>5</answer></answer>", None, "5"),
        ("<answer>5", None, "<answer>5"),
        ("<think><answer>4</answer></think>5", "<answer>4</answer>", "5"),
    ],
)
def test_a_reply_is_parted(text, thinking, answer):
    assert split_reply(text) == Reply(thinking=thinking, answer=answer)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("8/3/2", Fraction(4, 3)),
        ("10-4-3", 3),
        ("2--3", 5),
        ("-(2-3)", 1),
        (" 1.5 * 2\n", 3),
        ("(" * 50 + "1" + ")" * 50, 1),
        ("-" * 999 + "1", -1),
    ],
)
def test_expressions(expression, value):
    assert evaluate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "", "1/0", "1/(2-2)", "(1", "1)", "()", "1+", "*1", "1 2", "2(3)", "(2)(3)", "2**3", "7//2",
        "1_000", "1,000",        ".5", "5.", "1e3", "0x10", "٣+1", "２+2", "3×4", "8÷2", "5−2",
        "1=1", "abs(1)", "(" * 51 + "1" + ")" * 51,
        "1+" * 500 + "1", "(" * 1_000_000, "9" * 1_000_000,
    ],
)  # fmt: skip
def test_what_is_no_expression(expression):
    assert evaluate(expression) is None


def test_the_numbers_of_an_expression():
    assert numbers_in("-(3+4.5)*3") == [3, Fraction(9, 2), 3]
    assert numbers_in("3+x") == numbers_in("") == []


@st.composite
def trees(draw, depth=4):
    """An expression and its value by Python's own Fraction arithmetic; None for a division by zero."""
    if depth == 0 or draw(st.booleans()):
        number = draw(st.integers(0, 999) | st.decimals(0, 99, places=2).map(str))
        return str(number), Fraction(number), [Fraction(number)]
    (left, a, first), (right, b, second) = draw(trees(depth=depth - 1)), draw(trees(depth=depth - 1))
    operator, space = draw(st.sampled_from("+-*/")), draw(st.sampled_from(["", " "]))
    text = f"({left}){space}{operator}({space}-({right}))"
    if a is None or b is None or (operator == "/" and b == 0):
        return text, None, first + second
    value = {"+": a - b, "-": a + b, "*": -a * b, "/": -a / b if b else None}[operator]
    return text, value, first + second


@settings(max_examples=60)
@given(trees())
def test_evaluation_equals_fraction_arithmetic(tree):
    text, value, numbers = tree
    assert evaluate(text) == value
    assert numbers_in(text) == numbers


@given(st.lists(st.tuples(st.sampled_from("+-*"), st.integers(0, 50)), min_size=1, max_size=12))
def test_precedence_equals_pythons(terms):
    text = "".join(f"{operator}{number}" for operator, number in terms).lstrip("*")
    assert evaluate(text) == eval(text)  # noqa: S307  our own digits and operators


@given(replies)
def test_reading_is_total(text):
    reply = split_reply(text)
    assert reply.answer == reply.answer.strip()
    for part in (text, reply.answer):
        assert isinstance(evaluate(part), Fraction | None)


@pytest.mark.parametrize(
    "unit",
    ["<think>", "</think>", "<answer>", "\\boxed{", "}", "{", "\\", "9", "1,111", "-", "$", "1/", "^",
     "####", " ",     "\\frac{", "\\text{", "1.", "(", "\\boxed{1}", "\ud800"],
)  # fmt: skip
def test_a_million_characters_take_seconds_at_most(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    split_reply(text), evaluate(text), numbers_in(text)
    assert time.process_time() - start < 5
