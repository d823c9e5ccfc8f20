import time

import pytest

from shoestring.serve.translate.units import Unit, cut, is_whole, mark_letter, split

PAIR = ("<t1>", "</t1>", "<t2/>")


def test_a_text_is_split_at_its_own_marks():
    assert split("a <t1>b</t1> <t9>", PAIR) == ["a ", "<t1>", "b", "</t1>", " <t9>"]
    assert split("<t1> as text", ()) == ["<t1> as text"]
    assert Unit("<t1>12</t1> 3", ("<t1>", "</t1>")).has_words is False
    assert Unit("12 <b> é").has_words


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("<t2/>x <t1>b</t1>", True),
        ("<t1><t2/></t1>", True),
        ("<t1>b <t2/>", False),
        ("</t1>b<t1><t2/>", False),
        ("<t1>b</t1><t2/><t2/>", False),
        ("", False),
    ],
)
def test_marks_must_all_be_there_in_order(text, whole):
    assert is_whole(text, PAIR) is whole


def test_crossing_marks_are_not_whole():
    marks = ("<t1>", "</t1>", "<t2>", "</t2>")
    assert not is_whole("<t1>a<t2>b</t1>c</t2>", marks)
    assert is_whole("<t1>a<t2>b</t2>c</t1>", marks)


def test_marks_have_a_letter_that_the_text_has_not():
    assert mark_letter("a <b>") == "t"
    assert mark_letter("use <t1> and </m2>") == "x"


@pytest.mark.parametrize("most", [8, 15, 20, 60, 1000])
def test_a_cut_loses_nothing_and_never_splits_a_pair(most):
    text = 'One two three. Four (five) "six!" <t1>Seven eight. Nine ten</t1> eleven. 一二三。四五六。 End'
    unit = Unit(text, ("<t1>", "</t1>"))
    parts = list(cut(unit, most))
    assert "".join(part.text + space for part, space in parts) == text
    assert all(is_whole(part.text, part.marks) for part, _ in parts)
    assert all(len(part.text) <= most or part.marks or " " not in part.text for part, _ in parts[:-1])


def test_a_cut_prefers_ends_of_sentences():
    parts = [part.text for part, _ in cut(Unit("One two. Three four. Five six seven."), 22)]
    assert parts == ["One two. Three four.", "Five six seven."]


def test_hostile_units_are_cut_fast():
    begin = time.process_time()
    marks = tuple(f"<t{number}/>" for number in range(20_000))
    parts = list(cut(Unit("x ".join(marks), marks), 2000))
    assert sum(len(part.marks) for part, _ in parts) == len(marks)
    assert time.process_time() - begin < 5
