import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engine.output import TextOutput
from shoestring.sampling_params import SamplingParams
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.reply import ReplyReader, ToolPiece
from shoestring.tokenizer.chat.tool_format import DEEPSEEK_V3, DEEPSEEK_V3_1, HERMES, ToolFormat

FORMATS = [DEEPSEEK_V3, DEEPSEEK_V3_1]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
calls = st.lists(
    st.tuples(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.dictionaries(texts, texts)), max_size=3
)
sizes = st.lists(st.integers(0, 4), max_size=200)


def spelled(tool_format: ToolFormat, calls: list[tuple[str, dict[str, str]]]) -> str:
    """The text of tool calls as the model writes them."""
    if not calls:
        return ""
    parts = [
        tool_format.call_begin
        + tool_format.before_name
        + name
        + tool_format.before_arguments
        + json.dumps(arguments, ensure_ascii=False)
        + tool_format.after_arguments
        + tool_format.call_end
        for name, arguments in calls
    ]
    return tool_format.begin + tool_format.separator.join(parts) + tool_format.end


def read(reader: ReplyReader, tokenizer: Tokenizer, ids: list[int], sizes: list[int], stop: str = ""):
    """The whole reply: thinking, answer, and calls as (name, arguments); the engine's text in any pieces."""
    output = TextOutput(tokenizer, SamplingParams(stop=stop, skip_special_tokens=False))
    pieces, shown = [], 0
    for size in [*sizes, len(ids)]:
        part, ids = ids[:size], ids[size:]
        for number, token_id in enumerate(part):
            if output.push(token_id) is not None:
                part, ids = part[: number + 1], []
                break
        if not ids:
            output.finish()
        pieces += reader.push(part, output.text[shown : output.num_final])
        shown = output.num_final
        if not ids:
            break
    pieces += reader.finish()
    result = {"thinking": "", "answer": ""}
    found: list[list[str]] = []
    for piece in pieces:
        if isinstance(piece, ToolPiece):
            if piece.index == len(found):
                found.append([piece.name, ""])
            found[piece.index][1] += piece.arguments
        else:
            result[piece.kind] += piece.text
    return result["thinking"], result["answer"], [tuple(call) for call in found]


@pytest.mark.parametrize("tool_format", FORMATS)
@given(thought=texts, answer=texts, calls=calls, sizes=sizes)
def test_a_reply_is_read_alike_however_it_is_split(tokenizer, tool_format, thought, answer, calls, sizes):
    ids = [
        tokenizer.special_id(sp.THINK),
        *tokenizer.encode(thought),
        tokenizer.special_id(sp.THINK_END),
        *tokenizer.encode(answer),
        *tokenizer.encode(spelled(tool_format, calls), allow_special=True),
        tokenizer.eos_id,
    ]
    expected = [(name, json.dumps(arguments, ensure_ascii=False)) for name, arguments in calls]
    reader = ReplyReader(tokenizer, tool_format=tool_format)
    assert read(reader, tokenizer, ids, sizes) == (thought, answer, expected)


@given(texts, sizes)
def test_text_that_spells_a_call_stays_text(tokenizer: Tokenizer, answer: str, sizes: list[int]):
    text = f"{answer}{spelled(DEEPSEEK_V3, [('f', {})])}{sp.THINK}"
    reader = ReplyReader(tokenizer, tool_format=DEEPSEEK_V3)
    assert read(reader, tokenizer, tokenizer.encode(text), sizes) == ("", text, [])


@given(texts, texts, sizes)
def test_nothing_after_a_stop_string_is_shown(
    tokenizer: Tokenizer, before: str, after: str, sizes: list[int]
):
    ids = tokenizer.encode(f"{before}STOP{after}")
    reader = ReplyReader(tokenizer)
    assert read(reader, tokenizer, ids, sizes, stop="STOP") == ("", before.partition("STOP")[0], [])


@pytest.mark.parametrize(
    ("arguments", "shown"), [('{"city": "Par', '{"city": "Par'), ("", ""), ('{"a": 1}', '{"a": 1}')]
)
def test_a_call_that_breaks_off_keeps_what_there_is(tokenizer: Tokenizer, arguments: str, shown: str):
    text = f"{sp.TOOL_CALLS}{sp.TOOL_CALL}function{sp.TOOL_SEP}f\n```json\n{arguments}"
    reader = ReplyReader(tokenizer, tool_format=DEEPSEEK_V3)
    assert read(reader, tokenizer, tokenizer.encode(text, allow_special=True), [1] * 99) == (
        "",
        "",
        [("f", shown)],
    )


def test_a_call_without_a_name_is_shown_as_text(tokenizer: Tokenizer):
    text = f"a{sp.TOOL_CALL}nonsense{sp.TOOL_CALL_END}b"
    reader = ReplyReader(tokenizer, tool_format=DEEPSEEK_V3)
    thinking, answer, found = read(reader, tokenizer, tokenizer.encode(text, allow_special=True), [1] * 99)
    assert (thinking, answer, found) == ("", text, [])


def test_marks_mean_nothing_in_a_request_without_tools(tokenizer: Tokenizer):
    ids = tokenizer.encode(f"a{spelled(DEEPSEEK_V3, [('f', {})])}b", allow_special=True)
    assert read(ReplyReader(tokenizer), tokenizer, ids, [1] * 99) == ("", "afunctionf\n```json\n{}\n```b", [])


def test_qwens_calls_are_read(tokenizer: Tokenizer):
    """Its marks are added tokens that are not special."""
    definition = json.loads(json.dumps(tokenizer._definition))
    for number, mark in enumerate(("<tool_call>", "</tool_call>")):
        entry = {**definition["added_tokens"][0], "content": mark, "special": False}
        definition["added_tokens"].append({**entry, "id": tokenizer.vocab_size + number})
    qwen = Tokenizer(definition, dict(tokenizer.roles))
    ids = qwen.encode("ok\n" + spelled(HERMES, [("f", {"x": "é"}), ("g", {})]), allow_special=True)
    reader = ReplyReader(qwen, tool_format=HERMES)
    assert read(reader, qwen, ids, [2] * 99) == ("", "ok\n", [("f", '{"x": "é"}'), ("g", "{}")])
    assert not HERMES.fits(tokenizer)
    assert replace(HERMES, call_begin=sp.TOOL_CALL, call_end=sp.TOOL_CALL_END).fits(tokenizer)
