"""Values of answers: read, compared and voted on, in bounded time whatever the text; equality is fair."""

import time
from contextlib import suppress
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.tasks.values.compare import same
from shoestring.tasks.values.form import number_of, plain, readings, vote
from shoestring.tasks.values.tokens import BrokenLatex, Unread

PIECES = [
    "1", "2", "x", "y", "+", "-", "*", "/", ",", "{", "}", "(", ")", "[", "]", "\\{", "\\}", " or ",
    " and ", "0", "3.25", "\\infty", "\\frac{1}{2}", "\\frac", "^2", "^", "_", "i", "e", " cm",
    "\\text{ cm}", "%", ";", ":", "12:30", "\\mathbb{R}", "&", "\\begin{pmatrix}", "\\end{pmatrix}", "\\\\",
    "\\approx", "<", "\\le", "=", "|", "\\sqrt", "\\sqrt{", "\\sin", "\\log_2 ", "!", "\\pm", "\\cup",
    "\\text{a}", "'", "^\\circ", "0.\\overline{9}", "9^", "x^{999}", "3000!", "10^{9999}", "1e9999",
    "\\binom{50}{2}", "\\max(", "\\lfloor ", "$", "~", "\ud800",
]  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)


def is_same(right, text):
    trees = readings(right)
    return any(same(tree, other) for tree in trees for other in readings(text, is_reply=True))


@settings(max_examples=300, deadline=None)
@given(texts, texts)
def test_reading_comparing_and_voting_are_total(right, text):
    for some in (right, text):
        form = vote(some)
        assert form is None or isinstance(form, str)
        number_of(some)
    with suppress(BrokenLatex, Unread):
        assert is_same(right, text) in (True, False)


@settings(max_examples=200, deadline=None)
@given(texts)
def test_every_value_is_equal_to_itself(text):
    with suppress(BrokenLatex, Unread):
        assert all(same(tree, tree) for tree in readings(text))


@pytest.mark.parametrize(
    "piece", [*PIECES, "(", "-", "\\sqrt{", "9^{", "x/", "1/", "\\pm 1,", "1 ", "3000!*", "e^"]
)
@pytest.mark.parametrize("size", [300, 1900, 100_000])
def test_a_vote_takes_at_most_seconds(piece, size):
    start = time.process_time()
    vote(piece * (size // len(piece)))
    assert time.process_time() - start < 3


def test_nesting_costs_no_more_than_its_depth():
    start = time.process_time()
    for depth in (12, 20, 200):
        vote("1\\frac{" * depth + "1" + "}{2}" * depth)
        vote("(" * depth + "1" + ")^2" * depth)
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    "equal",
    [
        ["0.5", r"\frac12", "1/2", ".50", r"\dfrac{2}{4}", "2^{-1}", r"x = \frac{1}{2}", r"\sin 30^\circ"],
        ["1, -2", r"-2 \text{ and } 1", r"x=1 \text{ or } x=-2", r"\{-2, 1\}"],
        [r"x \ge 3", r"[3, \infty)", r"3 \le x", r"x\in[3,\infty)"],
        [r"\sqrt{12}", r"2\sqrt3", r"\frac{6}{\sqrt{3}}"],
        ["(x+1)^2", "x^2+2x+1", "1+2x+x^2"],
        ["(x^2)^3", "{x^2}^3", "x^6"],
        ["1,234", "1234", r"1{,}234", r"1\,234.0"],
        [r"\text{east}", "East", r"\textbf{east}"],
        [r"\text{(C)}", "C", "(C)"],
        ["0.333333", r"\frac{1}{3}", r"0.\overline{3}"],
        [r"1.6\times10^{-19}", "1.6e-19", r"16\cdot 10^{-20}"],
        [r"18\text{ eggs}", "18", "18.0", r"18\text{ m}^2"],
    ],
)
def test_equal_values_have_one_vote(equal):
    assert len({vote(text) for text in equal}) == 1
    assert all(is_same(one, other) for one, other in product(equal[:3], equal))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\frac{1}{2^{99}}", r"\frac{1}{2^{98}}"),
        ("1.6e-19", "1.6e-18"),
        ("3e-8", "4e-8"),
        (r"\sqrt{2}\cdot 10^{-60}", r"\sqrt{3}\cdot 10^{-60}"),
        ("x", "|x|"),
        ("(1,2)", "(2,1)"),
        ("[1,2]", "(1,2)"),
        ("12345678901234567890", "12345678901234567891"),
        (r"e^{\pi\sqrt{163}}", "262537412640768744"),
    ],
)
def test_unequal_values_have_two_votes(one, other):
    assert vote(one) != vote(other) or (one, other) == ("x", "|x|")
    assert not is_same(one, other)
    assert not is_same(other, one)


def test_a_difference_of_equal_numbers_is_zero_and_a_small_number_is_not():
    assert is_same("0", r"(\sqrt{2}+\sqrt{3})^2 - 5 - 2\sqrt{6}")
    assert not is_same("0", r"\sqrt{2}\cdot 10^{-70}")


@pytest.mark.parametrize("text", [r"\frac{1}{", r"\frac{1}", r"\sqrt", "x^", "{3", "3}", r"\frac", "x^2^3"])
def test_broken_latex_is_told_from_what_is_unknown(text):
    with pytest.raises(BrokenLatex):
        readings(text), plain(text)
    assert readings(r"\int_0^1 x dx") == []
