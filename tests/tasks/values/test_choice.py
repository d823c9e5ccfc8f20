"""The letter that an answer gives: however it is written, never one within a word, never one of a hedge."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.tasks.values.choice import choice_of

CHOICES = ["Paris", "London", "12 m", "a car"]


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("B.", "B"),
        ("B)", "B"),
        ("**B**", "B"),
        ("$B$", "B"),
        ("B. London", "B"),
        ("(B) London", "B"),
        ("B: London", "B"),
        ("Option B", "B"),
        ("London", "B"),
        ("**London**", "B"),
        ("The answer is B", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B)", "B"),
        ("The answer is **B**.", "B"),
        ("The answer is $B$.", "B"),
        ("The answer is option B.", "B"),
        ("the answer is (b)", "B"),
        ("The correct answer is B) London.", "B"),
        ("The correct option is B", "B"),
        ("The correct choice is (B): London", "B"),
        ("The best answer is B, London.", "B"),
        ("Answer: B", "B"),
        ("Answer: (B)", "B"),
        ("**Answer: B**", "B"),
        ("**Answer:** B", "B"),
        ("Answer:\n\n**B**", "B"),
        ("ANSWER: $B$", "B"),
        ("Answer = B", "B"),
        ("Final answer: B.", "B"),
        ("The final answer is $\\boxed{B}$.", "B"),
        ("\\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("\\boxed{(B)}", "B"),
        ("\\boxed{\\textbf{(B)}}", "B"),
        ("\\boxed{\\text{(B) London}}", "B"),
        ("\\boxed{B. London}", "B"),
        ("\\boxed{\\text{London}}", "B"),
        ("\\boxed{A} is wrong, so \\boxed{B}", "B"),
        ("\\boxed{\\langle H\\rangle \\ll \\Delta E}\n\n**Answer: D**", "D"),
        ("The calculated answer is 11.\n\nAnswer seems to be A.\n\nAnswer: B", "B"),
        ("The answer is A. Wait, no. The answer is B.", "B"),
        ("The answer is B. Note that A is a common distractor.", "B"),
        ("The answer is A because I computed it.", "A"),
        ("The answer is B because a car moves.", "B"),
        ("I would pick B — a safe choice.", "B"),
        ("London is the capital of the United Kingdom.\n\nB", "B"),
        ("So (B) is correct.", "B"),
        ("Therefore B is correct, I think.", "B"),
        ("A is wrong since it is in France.\n\nThe rest leaves **D**.", "D"),
        ("ANSWER IS D. A is incorrect.", "D"),
        ("The answer to the question is C.", "C"),
        ("It must be option C.", "C"),
        ("Antwort:\n\nAntwort: C", "C"),
        ("12 m", "C"),
        ("The answer is A car.", "D"),
        ("(B)\n\nExplanation: A is in France.", "B"),
        ("B is correct because A is in France", "B"),
        ("So B is the correct answer; A is not.", "B"),
        ("The answer is not A. It is B.", "B"),
        ("Not A, but B.", "B"),
        ("Let's see.\nA) wrong\nB) right\n\nAnswer: B", "B"),
        ("答案是B。", "B"),
        ("The answer is therefore B.", "B"),
        ("The right answer is letter B.", "B"),
        ("a car", "D"),
    ],
)
def test_a_letter_is_found(answer, letter):
    assert choice_of(answer, CHOICES) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "I do not know.",
        "The answer is a car with wheels, or maybe a bus.",
        "The answer is A or B.",
        "The answer is (A) or (B).",
        "The answer is A/B",
        "Answer: A, B",
        "Answer: B and C",
        "B or C",
        "(B) or (C)",
        "\\boxed{B, C}",
        "\\boxed{B \\text{ or } C}",
        "A, B, C, D",
        "A) wrong\nB) right",
        "Both A and B are possible.",
        "Answer: none of these",
        "It could be B. It could also be C.",
        "It is not B.",
        "neither B",
        "Definitely",
        "Because",
        "ABCD",
        "BBC",
        "Answer: E",
        "Answer: Boston",
        "The answer is Definitely not that",
        "\\boxed{x}",
        "\\boxed{E}",
        "Paris London",
        "I think so",
        "A dog",
        "I",
    ],
)
def test_hedges_words_and_denials_are_no_choice(answer):
    assert choice_of(answer, CHOICES) is None


def test_only_the_letters_of_the_choices_count():
    assert choice_of("The answer is I", list("abcdefghij")) == "I"
    assert choice_of("The answer is C because I computed it.", list("abcdefghij")) == "C"
    assert choice_of("J", list("abcdefghij")) == "J"
    assert choice_of("J", CHOICES) is None
    assert choice_of("yes", ["yes", "Yes"]) is None


@given(st.lists(st.sampled_from(["answer is ", "A", " B", "(", "\\boxed{", "}", "\n", "or ", "not ", "*"])))
def test_it_is_total(pieces):
    assert choice_of("".join(pieces), CHOICES) in (*"ABCD", None)


@pytest.mark.parametrize(
    "unit", ["answer is ", "A ", "(", "\\boxed{A}", "*", "answer to ", "A or ", "\n", "not "]
)
def test_a_million_characters_take_a_second_at_most(unit):
    start = time.process_time()
    choice_of(unit * (1_000_000 // len(unit)), CHOICES)
    assert time.process_time() - start < 2
