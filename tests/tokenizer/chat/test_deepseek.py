import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import JINJA, DeepSeekTemplate
from shoestring.tokenizer.chat.jinja import JinjaTemplate
from shoestring.tokenizer.chat.load import load_template
from shoestring.tokenizer.chat.template import encode_chat, encode_pieces, encode_prompt, pieces_text

OURS = DeepSeekTemplate()


def call(name: str, arguments: object) -> dict:
    return {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}


# Without special tokens, which transformers would make of any text that spells them.
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: not any(special in text for special in sp.SPECIAL_TOKENS)
)
calls = st.lists(
    st.builds(call, words, st.one_of(words, st.dictionaries(words, st.one_of(words, st.integers())))),
    max_size=2,
)
message = st.one_of(
    st.builds(lambda c: {"role": "system", "content": c}, words),
    st.builds(lambda c: {"role": "user", "content": c}, words),
    st.builds(lambda c: {"role": "tool", "content": c}, words),
    st.builds(
        lambda c, r, t: {"role": "assistant", "content": c, "reasoning_content": r, "tool_calls": t},
        words,
        words,
        calls,
    ),
    st.builds(lambda c, r: {"role": "assistant", "content": f"<think>{r}</think>{c}"}, words, words),
)
conversation = st.lists(message, min_size=1, max_size=8)
tool = {
    "type": "function",
    "function": {"name": "add", "description": "Größe <b>", "parameters": {"type": "object"}},
}
tool_lists = st.one_of(st.none(), st.just([tool]), st.just([tool, tool]))


@given(conversation, tool_lists, st.booleans(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_the_jinja_text_gives_the_same_ids_in_transformers(
    tokenizer: Tokenizer, oracle, chat, tools, prompt, thinking
):
    expected = oracle.apply_chat_template(
        chat,
        tools=tools,
        chat_template=JINJA,
        add_generation_prompt=prompt,
        thinking=thinking,
        return_dict=False,
    )
    pieces = OURS.render(chat, add_generation_prompt=prompt, tools=tools, thinking=thinking)
    assert tokenizer.decode(expected) == pieces_text(pieces)
    assert encode_pieces(pieces, tokenizer).ids == expected


@given(conversation)
@settings(max_examples=60, deadline=None)
def test_without_thinking_kept_the_two_agree_too(oracle, chat):
    expected = oracle.apply_chat_template(chat, chat_template=JINJA, keep_thinking=False, tokenize=False)
    assert pieces_text(DeepSeekTemplate(keep_thinking=False).render(chat)) == expected


@pytest.fixture(scope="module")
def foreign(tokenizer: Tokenizer):
    """Our own template, treated as a stranger's."""
    return JinjaTemplate(JINJA, tokenizer)


@given(conversation, tool_lists)
@settings(max_examples=60, deadline=None)
def test_derived_loss_equals_ours(tokenizer: Tokenizer, foreign: JinjaTemplate, chat, tools):
    """Spans found by rendering prefixes agree with the ones we write, ids and mask.

    A system message later on is moved to the front, which no prefix can survive; and before a first
    assistant turn there is no prompt to render. Both are left out.
    """
    chat = [m for i, m in enumerate(chat) if m["role"] != "system" or i == 0]
    if chat[0]["role"] == "assistant":
        chat.insert(0, {"role": "user", "content": "?"})
    assert encode_chat(chat, tokenizer, foreign, tools=tools) == encode_chat(
        chat, tokenizer, OURS, tools=tools
    )


def test_a_conversation_reads_as_deepseek_writes_it():
    chat = [
        {"role": "system", "content": "S"},
        {"role": "user", "content": "Q"},
        {"role": "assistant", "content": None, "tool_calls": [call("f", '{"a": 1}'), call("g", {"b": "é"})]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "R"},
    ]
    assert pieces_text(OURS.render(chat, add_generation_prompt=True, thinking=True)) == (
        "<｜begin▁of▁sentence｜>S<｜User｜>Q<｜Assistant｜><｜tool▁calls▁begin｜>"
        '<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{"a": 1}\n```<｜tool▁call▁end｜>\n'
        '<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{"b": "é"}\n```<｜tool▁call▁end｜>'
        "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"
        "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>1<｜tool▁output▁end｜>\n"
        "<｜tool▁output▁begin｜>2<｜tool▁output▁end｜><｜tool▁outputs▁end｜>A<｜end▁of▁sentence｜>"
        "<｜User｜>R<｜Assistant｜><think>"
    )


THOUGHT = "<think>\nhm\n</think>\n\n"
PAST = [
    {"role": "user", "content": "1"},
    {"role": "assistant", "content": THOUGHT + "one"},
    {"role": "user", "content": "2"},
]


def test_past_thinking_is_kept_or_dropped_as_r1_does():
    last = {"role": "assistant", "content": THOUGHT + "two"}
    kept = pieces_text(DeepSeekTemplate().render([*PAST, last]))
    dropped = pieces_text(DeepSeekTemplate(keep_thinking=False).render([*PAST, last]))
    assert kept.count(THOUGHT) == 2
    assert (
        dropped
        == f"{sp.BOS}{sp.USER}1{sp.ASSISTANT}\n\none{sp.EOS}{sp.USER}2{sp.ASSISTANT}{THOUGHT}two{sp.EOS}"
    )


def test_only_an_assistant_s_leading_thinking_is_markup(tokenizer: Tokenizer):
    think = tokenizer.special_id(sp.THINK)
    assert encode_prompt([{"role": "user", "content": THOUGHT}], tokenizer, OURS).count(think) == 0
    assert encode_chat(PAST, tokenizer, OURS).ids.count(think) == 1


@given(
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(st.sampled_from(sp.SPECIAL_TOKENS), max_size=9),
)
def test_no_content_makes_a_special_token(tokenizer: Tokenizer, role: str, spellings: list[str]):
    specials = set(tokenizer.specials.values())
    shapes = [
        [i for i in encode_chat([{"role": role, "content": text}], tokenizer, OURS).ids if i in specials]
        for text in ("", "x" + "".join(spellings))
    ]
    assert shapes[0] == shapes[1]


def test_tool_arguments_make_no_special_token(tokenizer: Tokenizer):
    chat = [{"role": "assistant", "content": "", "tool_calls": [call(sp.EOS, {sp.EOS: sp.USER})]}]
    ids = encode_chat(chat, tokenizer, OURS).ids
    assert (ids.count(tokenizer.eos_id), ids.count(tokenizer.special_id(sp.USER))) == (1, 0)


@pytest.mark.parametrize("template", [DeepSeekTemplate(), DeepSeekTemplate(keep_thinking=False)])
def test_a_saved_folder_gives_our_function_again(
    tokenizer: Tokenizer, tmp_path: Path, template: DeepSeekTemplate
):
    tokenizer.save(tmp_path)
    template.save(tmp_path)
    assert load_template(tmp_path, tokenizer) == template


def test_transformers_finds_the_template_we_save(tokenizer: Tokenizer, tmp_path: Path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    OURS.save(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded.apply_chat_template(PAST, add_generation_prompt=True, return_dict=False)
    assert ids == encode_prompt(PAST, tokenizer, OURS)


def test_tools_are_written_as_json(tokenizer: Tokenizer):
    text = pieces_text(OURS.render([{"role": "user", "content": "Q"}], tools=[tool]))
    assert json.dumps(tool, ensure_ascii=False) + sp.USER in text
