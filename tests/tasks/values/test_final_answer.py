"""The final answer of a text: the last box, the line after ####, or the last number; total and linear."""

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.tasks.values.final_answer import boxes, candidates, final_number, mark

PIECES = [
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
    "answer is",
    "\\frac",
    "\\[",
    "1",
    " 2 ",
]
replies = st.lists(st.sampled_from(PIECES) | st.text(max_size=8) | st.integers().map(str)).map("".join)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{4}, no, \boxed{5}", "5"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\boxed{5}}", "5"),
        (r"\boxed{4} \boxed{5", ""),
        (r"\boxed {5}", "5"),
        (r"\fbox{5}", "5"),
        (r"\boxed 5.", "5"),
        (r"$\boxed5$", "5"),
        (r"\\boxed{5}", "5"),
        (r"\boxed{\text{a } b}", r"\text{a } b"),
        (r"\boxed{\{5\}}", r"\{5\}"),
        (r"\boxed{}", ""),
        (r"\box{5}", None),
        ("boxed{5}", None),
    ],
)
def test_the_last_box_counts(text, content):
    assert (boxes(text) or [None])[-1] == content


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("18", 18),
        ("12/60 = $0.20.", Fraction(1, 5)),
        ("$1,080", 1080),
        (r"\boxed{1{,}080}", 1080),
        (r"\boxed{\$20}", 20),
        (r"\boxed{18\text{ dollars}}", 18),
        (r"\boxed{\dfrac{3}{4}}", Fraction(3, 4)),
        (r"\boxed{x = -3}", -3),
        ("first\n#### 42\nand 7 more", 42),
        (r"\boxed{5} #### 6", 5),
        ("10-3", 3),
        ("a range of 5-7", 7),
        ("-$5.50", Fraction(-11, 2)),
        ("−7", -7),
        ("50%", 50),
        ("3/4", Fraction(3, 4)),
        ("about 5km", 5),
        (r"\boxed{2\frac{1}{2}}", Fraction(5, 2)),
        (r"\boxed{2 1/2}", Fraction(5, 2)),
        ("She ate 2 1/2 pies", Fraction(5, 2)),
        ("that makes .5", Fraction(1, 2)),
        (r"\boxed{.5}", Fraction(1, 2)),
        (r"\boxed{1.8\times10^1}", 18),
        ("1.8e1", 18),
        (r"\boxed{2^{10}}", 1024),
        (r"\boxed{1 234}", 1234),
        (r"\boxed{1\,234}", 1234),
        (r"\boxed{1.234}", Fraction(1234, 1000)),
        (r"\boxed{1.234.567,5}", Fraction(12345675, 10)),
        (r"\boxed{€18}", 18),
        (r"\boxed{18\text{ m}^2}", 18),
        (r"\boxed{3\times 6 = 18}", 18),
        (r"\boxed{\text{Janet makes } 18 \text{ dollars}}", 18),
        ("#### 1,080 dollars", 1080),
        ("The answer is 72, which she splits over 2 days.", 72),
        ("**Answer:** 12 - 4 = 8 eggs for 3 people", 8),
        ("The answer is 5. Wait, that is wrong: it is 7", 7),
        ("72 clips, altogether.", 72),
    ],
)
def test_the_number_of_an_answer(text, number):
    assert final_number(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "", "none", "1/0", "2^10", r"\boxed{2^{1/2}}", r"\boxed{\sqrt{2}}", r"\boxed{3 or 4}", "#### ",
        "#### 3, 4",        r"\boxed{no} 5", "x2", "٤٢", "４２", "4２", "10²", "5½", "9" * 5000,
    ],
)  # fmt: skip
def test_look_alikes_and_hedges_are_no_number(text):
    assert final_number(text) is None


def test_a_number_of_another_alphabet_does_not_hide_the_last_one():
    assert final_number("7, or ４２") == 7


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{7", ""),
        (r"\boxed{\frac{1}{2}", ""),
        (r"\boxed{5} and \boxed{7", ""),
        ("7", None),
        ("#### 7 \nmore", "7"),
        (r"\boxed{5} #### 6", "5"),
    ],
)
def test_a_box_that_is_never_closed_is_no_answer(text, content):
    assert mark(text) == content


def test_boxes_are_found_in_order():
    assert boxes(r"\boxed{2} and \fbox{\frac{1}{2}} or \boxed{x}") == ["2", r"\frac{1}{2}", "x"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("So the final answer is $x^2+1$.", "x^2+1"),
        ("The answer is:\n\n$$\\frac12$$", r"\frac12"),
        ("We get \\(x = 5\\).", "x = 5"),
        ("2\\sqrt{3}", r"2\sqrt{3}"),
        ("the result is 5", "5"),
    ],
)
def test_an_answer_without_a_mark(text, first):
    assert candidates(text)[0] == first


@given(replies)
def test_reading_is_total(text):
    assert isinstance(final_number(text), Fraction | None)
    assert all(content in text for content in boxes(text))
    assert all(candidates(text))


@pytest.mark.parametrize(
    "unit",
    ["\\boxed{", "}", "{", "\\", "9", "1,111", "-", "$", "1/", "^", "####", " ", "\\frac{", "\\text{", "1.",
     "(", "\\boxed{1}", "\ud800", "answer is ", "answer is 1 = ", "1 1/", "\\[ ", "$$", "1e",
     "\\boxed ", "1 111"],
)  # fmt: skip
def test_a_million_characters_take_seconds_at_most(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.process_time()
    final_number(text), candidates(text), boxes(text)
    assert time.process_time() - start < 5
