"""Preferences from rows: TRL's forms, explicit and implicit, and those of others."""

import pytest

from shoestring.data.forms.pairs import labelled_completion, preference_pair

ASK, GOOD, BAD = "What color is the sky?", "It is blue.", "It is green."
USER = {"role": "user", "content": ASK}
CHOSEN, REJECTED = ({"role": "assistant", "content": text} for text in (GOOD, BAD))
HH = "\n\nHuman: {}\n\nAssistant: {}"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": ASK, "chosen": GOOD, "rejected": BAD},
        {"prompt": [USER], "chosen": [CHOSEN], "rejected": [REJECTED]},
        {"chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
        {"prompt": ASK, "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
        {"prompt": [USER], "chosen": [USER, CHOSEN], "rejected": [USER, REJECTED]},
        {"prompt": [USER], "chosen": CHOSEN, "rejected": REJECTED},
        {"chosen": HH.format(ASK, GOOD), "rejected": HH.format(ASK, BAD)},
        {"instruction": ASK, "input": "", "chosen": GOOD, "rejected": BAD},
        {
            "conversations": [{"from": "human", "value": ASK}],
            "chosen": {"from": "gpt", "value": GOOD},
            "rejected": {"from": "gpt", "value": BAD},
        },
        {"messages": [USER], "chosen": {**CHOSEN, "weight": 1}, "rejected": REJECTED},
        {"question": ASK, "chosen": GOOD, "rejected": BAD},
    ],
)
def test_every_form_gives_the_same_pair(row):
    pair = preference_pair(row, {})
    assert (pair.prompt, pair.chosen, pair.rejected) == ([USER], [CHOSEN], [REJECTED])
    assert (pair.tools, pair.unread) == (None, ())


def test_an_implicit_prompt_of_text_ends_at_a_word():
    pair = preference_pair({"chosen": "The sky is blue.", "rejected": "The sky is black."}, {})
    assert pair.prompt == [{"role": "user", "content": "The sky is"}]
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("blue.", "black.")


def test_all_turns_that_both_share_are_the_prompt():
    turns = [USER, CHOSEN, {"role": "user", "content": "Sure?"}]
    yes, no = ({"role": "assistant", "content": text} for text in ("Yes.", "No."))
    pair = preference_pair({"chosen": [*turns, yes], "rejected": [*turns, no]}, {})
    assert (pair.prompt, pair.chosen, pair.rejected) == (turns, [yes], [no])


def test_columns_are_mapped_and_a_system_message_comes_first():
    row = {"system": "Be brief.", "ask": ASK, "better": GOOD, "worse": BAD, "score": 3}
    pair = preference_pair(row, {"prompt": "ask", "chosen": "better", "rejected": "worse"})
    assert pair.prompt == [{"role": "system", "content": "Be brief."}, USER]
    assert pair.unread == ("score",)


def test_words_of_a_speaker_inside_a_reply_are_text():
    row = {"prompt": ASK, "chosen": "Assistant: x", "rejected": "y\n\nHuman: z"}
    assert preference_pair(row, {}).rejected[0]["content"] == "y\n\nHuman: z"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": ASK, "completion": GOOD}, "no chosen and rejected, but prompt, completion"),
        ({"prompt": ASK, "chosen": GOOD, "rejected": GOOD}, "are the same"),
        ({"chosen": "a", "rejected": "b"}, "no prompt"),
        ({"chosen": [USER, USER], "rejected": [USER, REJECTED]}, "chosen reply does not end"),
        ({"prompt": ASK, "chosen": 5, "rejected": BAD}, "'chosen' is a int"),
        ({"prompt": 5, "chosen": GOOD, "rejected": BAD}, "'prompt' is a int"),
    ],
)
def test_what_is_no_pair_says_why(row, reason):
    with pytest.raises(ValueError, match=reason):
        preference_pair(row, {})


@pytest.mark.parametrize(("label", "expected"), [(True, True), (0, False), ("false", False), ("1", True)])
def test_one_reply_with_its_label(label, expected):
    item = labelled_completion({"prompt": ASK, "completion": GOOD, "label": label}, {})
    assert (item.prompt, item.completion, item.label) == ([USER], [CHOSEN], expected)


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": ASK, "input": "", "output": GOOD, "kto_tag": True},
        {"messages": [USER, CHOSEN], "label": True},
        {"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": GOOD}], "kto_tag": 1},
        {"prompt": [USER], "completion": [CHOSEN], "label": True},
    ],
)
def test_unpaired_rows_of_others(row):
    item = labelled_completion(row, {})
    assert (item.prompt, item.completion, item.label, item.unread) == ([USER], [CHOSEN], True, ())


def test_a_label_that_is_none_is_refused():
    with pytest.raises(ValueError, match="neither true nor false"):
        labelled_completion({"prompt": ASK, "completion": GOOD, "label": "good"}, {})
    with pytest.raises(ValueError, match="no prompt, completion and label"):
        labelled_completion({"prompt": ASK, "completion": GOOD}, {})
