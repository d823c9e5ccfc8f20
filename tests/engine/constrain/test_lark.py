import json

import pytest

from shoestring.engine.constrain.grammars import GrammarCache
from shoestring.engine.constrain.lark import MAX_TEXT_BYTES, grammar_text
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError, TokenizerError
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.template import encode_chat

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME = {"type": "function", "function": {"name": "get_time"}}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(['function get_weather\n```json\n{"city": "Rome", "days": 3}\n```' * 50], 350)


@pytest.fixture(scope="module")
def cache(tokenizer):
    cache = GrammarCache(tokenizer, tokenizer.vocab_size, time_limit_s=5.0)
    yield cache
    cache.close()


def reply(tokenizer, content, calls=(), thinking=None):
    """The ids of an assistant's turn, as the template writes them for training."""
    message = {"role": "assistant", "content": content}
    if thinking is not None:
        message["reasoning_content"] = thinking
    if calls:
        message["tool_calls"] = [
            {"type": "function", "id": str(i), "function": {"name": name, "arguments": arguments}}
            for i, (name, arguments) in enumerate(calls)
        ]
    chat = encode_chat([{"role": "user", "content": "?"}, message], tokenizer, DeepSeekTemplate())
    return [token_id for token_id, own in zip(chat.ids, chat.loss_mask, strict=True) if own]


def accepts(cache, ids, tool_choice, tools=(WEATHER, TIME)):
    spec = StructuredOutputsParams(tools=tools, tool_choice=tool_choice)
    matcher = cache.compile(spec).matcher()
    return all(matcher.consume(token_id) for token_id in ids)


GOOD = ("get_weather", '{"city": "Rome", "days": 3}')
NOW = ("get_time", "{}")


@pytest.mark.parametrize(
    ("content", "calls", "thinking", "auto", "required", "named"),
    [
        ("", [GOOD], None, True, True, True),
        ("", [GOOD, NOW], None, True, True, False),
        ("", [NOW], None, True, True, False),
        ("Just text.", [], None, True, False, False),
        ("Let me look.\n", [GOOD, GOOD, NOW], None, True, False, False),
        ("Let me look.", [GOOD], "Which city?", True, False, False),
        ("Answer.", [], "Hm.", True, False, False),
        ("", [("get_weather", '{"days": 3}')], None, False, False, False),
        ("", [("get_weather", '{"city": "Rome", "days": 8}')], None, False, False, False),
        ("", [("get_weather", '{"city": "Rome", "hours": 1}')], None, False, False, False),
        ("", [("get_weather", "Rome")], None, False, False, False),
        ("", [("get_time", '{"zone": 1}')], None, False, False, False),
        ("", [("remove_all", "{}")], None, False, False, False),
    ],
)
def test_calls_are_written_as_the_template_writes_them(
    cache, tokenizer, content, calls, thinking, auto, required, named
):
    ids = reply(tokenizer, content, calls, thinking)
    assert accepts(cache, ids, "auto") == auto
    assert accepts(cache, ids, "required") == required
    assert accepts(cache, ids, "get_weather") == named


def with_marks(tokenizer, *marks):
    """The tokenizer with further added tokens, which are not special."""
    definition = json.loads(json.dumps(tokenizer._definition))
    for number, mark in enumerate(marks):
        entry = {**definition["added_tokens"][0], "content": mark, "special": False}
        definition["added_tokens"].append({**entry, "id": tokenizer.vocab_size + number})
    return Tokenizer(definition, dict(tokenizer.roles))


V3_1 = f"{sp.TOOL_CALLS}{sp.TOOL_CALL}get_time{sp.TOOL_SEP}{{}}{sp.TOOL_CALL_END}{sp.TOOL_CALLS_END}"
HERMES = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'


@pytest.mark.parametrize(
    ("tool_format", "text"), [("deepseek_v3_1", V3_1), ("hermes", HERMES), ("hermes", f"{HERMES}\n{HERMES}")]
)
def test_calls_are_written_in_the_models_format(tokenizer, tool_format, text):
    model = with_marks(tokenizer, "<tool_call>", "</tool_call>")
    cache = GrammarCache(model, model.vocab_size)
    ids = model.encode(text, allow_special=True)
    for choice, before in (("auto", "Let me look.\n"), ("required", ""), ("get_time", "")):
        spec = StructuredOutputsParams(tools=(WEATHER, TIME), tool_choice=choice, tool_format=tool_format)
        matcher = cache.compile(spec).matcher()
        is_allowed = all(matcher.consume(token_id) for token_id in [*model.encode(before), *ids])
        assert is_allowed == (choice != "get_time" or text.count("get_time") == 1)
        assert not is_allowed or matcher.is_accepting
    half = cache.compile(StructuredOutputsParams(tools=(TIME,), tool_format=tool_format)).matcher()
    assert not all(half.consume(token_id) for token_id in model.encode(text[:-1] + "x", allow_special=True))
    cache.close()


def test_one_call_is_allowed_where_parallel_calls_are_not(tokenizer, cache):
    for parallel in (True, False):
        spec = StructuredOutputsParams(tools=(WEATHER, TIME), parallel_tool_calls=parallel)
        for calls, is_allowed in (([NOW], True), ([NOW, GOOD], parallel)):
            matcher = cache.compile(spec).matcher()
            assert all(map(matcher.consume, reply(tokenizer, "", calls))) == is_allowed


def test_a_tokenizer_without_tool_tokens_is_refused_by_name():
    definition = json.loads(json.dumps(Tokenizer.train(["abc"], 300)._definition))
    definition["added_tokens"] = [t for t in definition["added_tokens"] if "tool" not in t["content"]]
    bare = Tokenizer(definition, {"eos_token": "<｜end▁of▁sentence｜>"})
    with pytest.raises(TokenizerError, match="tool"):
        grammar_text(StructuredOutputsParams(tools=(WEATHER,)), bare)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"tools": ()}, "1 to 128 tools"),
        ({"tools": (TIME,) * 2}, "'get_time', which another tool has"),
        ({"tools": ({"type": "retrieval"},)}, r"tools\[0\] must be"),
        ({"tools": ("get_time",)}, r"tools\[0\] must be"),
        ({"tools": ({"function": {"name": "a b"}},)}, "name of 1 to 64"),
        ({"tools": ({"function": {"name": 'x"\n'}},)}, "name of 1 to 64"),
        ({"tools": ({"function": {"name": "f", "parameters": {"type": "array"}}},)}, "'f' must be a schema"),
        ({"tools": (TIME,), "tool_format": "xml"}, "not one of deepseek_v3, deepseek_v3_1, hermes"),
        ({"tools": (TIME,), "tool_choice": "set_time"}, "auto, required or one of the tools: get_time"),
        (
            {"tools": ({"function": {"name": "f", "parameters": {"type": "object", "not": {}}}},)},
            "the parameters of tool 'f': # has the keyword 'not'",
        ),
        ({"choice": ()}, "1 to 10000 texts"),
        ({"choice": ("a", 1)}, "must be text, not a int"),
        ({"choice": ("a\ud800",)}, "lone surrogate"),
        ({"choice": ("a" * MAX_TEXT_BYTES,) * 9}, "256 KiB in all"),
        ({"regex": "a" * (MAX_TEXT_BYTES + 1)}, "longer than 32 KiB"),
        ({"regex": 5}, "must be text"),
        ({"grammar": "start: \ud800"}, "lone surrogate"),
    ],
)
def test_what_is_wrong_is_named(tokenizer, spec, words):
    with pytest.raises(ConfigError, match=words):
        grammar_text(StructuredOutputsParams(**spec), tokenizer)
