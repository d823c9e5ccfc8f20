import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import THINK, THINK_END
from shoestring.tokenizer.thinking import ends_in_thinking, split_thinking, thinking_tokens

WORDS = Tokenizer.train(["What is 3 + 4? It is seven, think about it."], 300)
BEGIN, END = WORDS.special_id(THINK), WORDS.special_id(THINK_END)


def test_thinking_is_split_at_its_first_closing_tag():
    assert split_thinking("<think>a</think>b</think>") == ("a", "b</think>")
    assert split_thinking("b<think>a</think>") == (None, "b<think>a</think>")
    assert split_thinking("<think>never closed") == (None, "<think>never closed")


@pytest.mark.parametrize(
    ("ids", "is_inside"), [([BEGIN], True), ([BEGIN, 9, END], False), ([END, BEGIN, 9], True), ([9], False)]
)
def test_a_reply_begins_inside_thinking_after_an_open_tag(ids, is_inside):
    assert ends_in_thinking(ids, WORDS) is is_inside


@pytest.mark.parametrize("special", [True, False])
def test_thinking_is_what_stands_before_the_last_closing_tag(special):
    thoughts = WORDS.encode("It is seven")
    end = WORDS.encode(THINK_END, allow_special=special)
    answer = WORDS.encode("seven")
    assert thinking_tokens(THINK, [*thoughts, *end, *answer], WORDS) == len(thoughts)
    assert thinking_tokens(THINK, [*thoughts, *end, *thoughts, *end], WORDS) == 2 * len(thoughts) + len(end)
    assert thinking_tokens(THINK, thoughts, WORDS) == len(thoughts)
    assert thinking_tokens("", [*thoughts, *end], WORDS) == 0
    assert thinking_tokens("", [WORDS.special_id(THINK), *thoughts, *end], WORDS) == 1 + len(thoughts)
    assert thinking_tokens(THINK + THINK_END, thoughts, WORDS) == 0


@given(st.lists(st.integers(0, WORDS.vocab_size + 3)), st.sampled_from(["", THINK, "<think>\n"]))
def test_any_tokens_have_a_length_of_thinking(ids, opening):
    assert 0 <= thinking_tokens(opening, ids, WORDS) <= len(ids)
