"""Marks of turns and of parts of them: weight, train, parts, train_detail."""

import pytest

from shoestring.data.forms.marks import Mark, Span, read_marks, without_marks

TURN = {"role": "assistant", "content": "first second"}


@pytest.mark.parametrize(
    ("marks", "learn"),
    [
        ({}, None),
        ({"weight": 0}, False),
        ({"weight": 1.0}, True),
        ({"weight": "0"}, False),
        ({"train": False}, False),
        ({"train": True, "weight": 1}, True),
        ({"train": "false"}, False),
        ({"train": None}, None),
    ],
)
def test_a_turn_is_marked_as_a_whole(marks, learn):
    assert read_marks({**TURN, **marks}, "message 0") == (TURN, Mark(learn=learn))


def test_parts_and_offsets_mark_the_same_characters():
    parts = [{"type": "text", "text": "first "}, {"type": "text", "text": "second", "weight": 0}]
    detail = [{"begin_offset": 6, "end_offset": 11, "train": False}]
    expected = (TURN, Mark(spans=(Span(start=6, end=12, learn=False),)))
    assert read_marks({**TURN, "content": parts}, "m") == expected
    assert read_marks({**TURN, "train_detail": detail}, "m") == expected


@pytest.mark.parametrize("key", ["text", "content", "value"])
def test_reasoning_has_parts_too_and_their_text_has_several_names(key):
    parts = [{"type": "text", key: "hm", "train": False}, {key: "oh"}]
    plain, mark = read_marks({**TURN, "reasoning_content": parts}, "m")
    assert plain == {**TURN, "reasoning_content": "hmoh"}
    assert mark.spans == (Span(start=0, end=2, learn=False, key="reasoning_content"),)
    image = [{"type": "image_url", "image_url": {}}]
    assert (
        read_marks({**TURN, "content": image}, "m")[0]["content"] == image
    )  # the template's check refuses it


def test_a_user_turn_is_learned_only_if_train_says_so():
    user = {"role": "user", "content": "x"}
    assert read_marks({**user, "weight": 1}, "m")[1].learn is None
    assert read_marks({**user, "train": True}, "m")[1].learn is True
    assert without_marks({**user, "train": True, "weight": 1}) == user


@pytest.mark.parametrize(
    ("marks", "reason"),
    [
        ({"weight": 0.5}, "m has a weight that is not 0 or 1"),
        ({"weight": "half"}, "not 0 or 1"),
        ({"train": 2}, "m has a train that is not true or false"),
        ({"weight": 0, "train": True}, "weight = 0 and train = True; remove one"),
        (
            {"train_detail": [{"begin_offset": 0, "end_offset": 12, "train": False}]},
            "to 12, but 12 characters",
        ),
        ({"train_detail": [{"begin_offset": 0, "end_offset": 3}]}, "a train that is not"),
        ({"train_detail": "0-3"}, "without begin_offset"),
        ({"content": [{"type": "text", "text": "a", "train": "x"}]}, "a part of m has a train"),
    ],
)
def test_other_marks_are_refused(marks, reason):
    with pytest.raises(ValueError, match=reason):
        read_marks({**TURN, **marks}, "m")
