import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import THINK, THINK_END
from shoestring.tokenizer.stream import TextStream
from shoestring.tokenizer.thinking import ends_in_thinking


def chunks(ids: list[int], sizes: list[int]) -> list[list[int]]:
    parts, rest = [], ids
    for size in sizes:
        parts.append(rest[:size])
        rest = rest[size:]
    return [*parts, rest]


ordinary = st.lists(st.integers(19, 999), max_size=60)
sizes = st.lists(st.integers(0, 4), max_size=60)


@given(ordinary, sizes)
def test_pieces_join_to_the_decoding(tokenizer: Tokenizer, ids: list[int], sizes: list[int]):
    """Whatever the ids (most are not even UTF-8) and however they arrive."""
    stream = TextStream(tokenizer)
    pieces = [piece for part in chunks(ids, sizes) for piece in stream.push(part)] + stream.finish()
    assert "".join(piece.text for piece in pieces) == tokenizer.decode(ids)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_no_piece_holds_half_a_character(tokenizer: Tokenizer, text: str):
    stream = TextStream(tokenizer)
    seen = ""
    for token_id in tokenizer.encode(text):
        seen += "".join(piece.text for piece in stream.push([token_id]))
        assert text.startswith(seen)
    assert stream.finish() == []
    assert seen == text


@given(st.text(max_size=20), st.text(max_size=20), sizes)
def test_thinking_and_answer_are_told_apart(
    tokenizer: Tokenizer, thought: str, answer: str, sizes: list[int]
):
    think, end = tokenizer.special_id(THINK), tokenizer.special_id(THINK_END)
    ids = [think, *tokenizer.encode(thought), end, *tokenizer.encode(answer), tokenizer.eos_id]
    for prompted in (False, True):
        stream = TextStream(tokenizer, thinking=prompted)
        parts = chunks(ids[1:] if prompted else ids, sizes)
        pieces = [piece for part in parts for piece in stream.push(part)] + stream.finish()
        assert "".join(piece.text for piece in pieces if piece.kind == "thinking") == thought
        assert "".join(piece.text for piece in pieces if piece.kind == "answer") == answer


def test_a_tag_ends_an_unfinished_character(tokenizer: Tokenizer):
    stream = TextStream(tokenizer, thinking=True)
    first = tokenizer.encode("\U0001f600")[0]
    pieces = stream.push([first, tokenizer.special_id(THINK_END), *tokenizer.encode("ok")])
    assert [(piece.text, piece.kind) for piece in pieces] == [("\ufffd", "thinking"), ("ok", "answer")]


def test_a_tag_typed_as_text_does_not_switch(tokenizer: Tokenizer):
    stream = TextStream(tokenizer)
    pieces = stream.push(tokenizer.encode(f"{THINK}no{THINK_END}"))
    assert "".join(piece.text for piece in pieces) == f"{THINK}no{THINK_END}"
    assert {piece.kind for piece in pieces} == {"answer"}


@pytest.fixture(scope="module")
def tagless(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without tokens for the thinking tags."""
    added = [t for t in tokenizer._definition["added_tokens"] if t["content"] not in (THINK, THINK_END)]
    return Tokenizer({**tokenizer._definition, "added_tokens": added}, tokenizer.roles)


@pytest.mark.parametrize(
    ("text", "prompted", "thinking", "answer"),
    [
        ("<think>a</think>b", False, "a", "b"),
        ("\n <think>\na\n</think>\n\nb", False, "\na\n", "\n\nb"),
        ("a</think>b</think>", True, "a", "b</think>"),
        ("so <think>a</think>b", False, "", "so <think>a</think>b"),
        ("<think>never ends </thi", False, "never ends </thi", ""),
        ("<thi", False, "", "<thi"),
        ("", False, "", ""),
        ("<think>x<think>y</think>", False, "x<think>y", ""),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_tags_in_plain_text_split_where_there_are_no_tokens(tagless, text, prompted, thinking, answer, size):
    stream = TextStream(tagless, thinking=prompted)
    ids = tagless.encode(text)
    pieces = [p for n in range(0, len(ids), size) for p in stream.push(ids[n : n + size])] + stream.finish()
    assert "".join(piece.text for piece in pieces if piece.kind == "thinking") == thinking
    assert "".join(piece.text for piece in pieces if piece.kind == "answer") == answer


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("Q<think>\n", True), ("<think>", True), ("<think> Q", False), ("</think>", False)],
)
def test_a_prompt_in_plain_text_may_open_the_thinking(tagless, prompt, expected):
    assert ends_in_thinking(tagless.encode(prompt), tagless) is expected
