import builtins
import json
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.engine.constrain.grammars import (
    GrammarCache,
    apply_mask,
    pack_mask,
    unpack_mask,
)
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError, MissingDependencyError, TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import ASSISTANT, THINK, THINK_END

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 5}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
WIDTH = 700
"""More than the tokenizer has ids: embeddings are often padded."""


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(['{"name": "Ada", "age": 36} while the rest "goes on" 0123456789\n' * 50], 400)


@pytest.fixture(scope="module")
def cache(tokenizer):
    cache = GrammarCache(tokenizer, WIDTH, time_limit_s=5.0)  # a busy machine is slow, not wrong
    yield cache
    cache.close()


def allowed(matcher):
    return set(np.flatnonzero(unpack_mask(matcher.mask(), WIDTH)).tolist())


def feed(matcher, tokenizer, text):
    return all(matcher.consume(token_id) for token_id in tokenizer.encode(text))


def accepts(cache, text, **spec):
    matcher = cache.compile(StructuredOutputsParams(**spec)).matcher()
    return feed(matcher, cache.tokenizer, text) and matcher.is_accepting


def test_the_mask_allows_exactly_what_consume_takes(cache, tokenizer):
    grammar = cache.compile(StructuredOutputsParams(json=PERSON))
    for text in ("", "{", '{"name":"A', '{"name":"Ada","age":3', '{"name":"Ada","age":36}'):
        mask_of = grammar.matcher()
        assert feed(mask_of, tokenizer, text)
        taken = set()
        for token_id in range(WIDTH):
            fresh = grammar.matcher()
            feed(fresh, tokenizer, text)
            if fresh.consume(token_id):
                taken.add(token_id)
        assert allowed(mask_of) == taken
        assert taken


def test_the_end_token_is_allowed_only_when_the_text_may_end(cache, tokenizer):
    matcher = cache.compile(StructuredOutputsParams(regex="a+")).matcher()
    assert tokenizer.eos_id not in allowed(matcher)
    assert not matcher.consume(tokenizer.eos_id)
    assert not matcher.is_accepting
    feed(matcher, tokenizer, "a")
    assert matcher.is_accepting
    assert not matcher.is_stopped
    assert tokenizer.eos_id in allowed(matcher)
    assert matcher.consume(tokenizer.eos_id)
    assert matcher.is_stopped
    assert allowed(matcher) == {tokenizer.eos_id}
    assert not matcher.consume(tokenizer.eos_id)


def test_a_finished_document_may_only_end(cache, tokenizer):
    matcher = cache.compile(StructuredOutputsParams(json=PERSON)).matcher()
    assert feed(matcher, tokenizer, '{"name": "Ada", "age": 36}')
    assert matcher.is_stopped
    assert allowed(matcher) == {tokenizer.eos_id}


def test_a_refused_token_changes_nothing(cache, tokenizer):
    matcher = cache.compile(StructuredOutputsParams(json=PERSON)).matcher()
    feed(matcher, tokenizer, '{"name')
    before = matcher.mask()
    assert not matcher.consume(tokenizer.encode("}")[0])
    assert not matcher.consume(tokenizer.eos_id)
    assert not matcher.consume(WIDTH - 1)  # an id without a token
    assert np.array_equal(matcher.mask(), before)
    assert feed(matcher, tokenizer, '": "A", "age": 1}')


SPECS = [
    {"json": PERSON},
    {"json_object": True},
    {"regex": r"(ab|cd)*[0-9]{2,4}(é😀)?"},
    {"choice": ("yes", "yesterday", "no", "é")},
    {"grammar": 'start: e\ne: e "+" e | "(" e ")" | /[0-9]+/'},
]


@settings(max_examples=60)
@given(
    spec=st.sampled_from(SPECS),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 10**6)), max_size=40),
    thinking=st.booleans(),
)
def test_rollback_is_exact(cache, tokenizer, spec, steps, thinking):
    """After any mixture of tokens and rollbacks the matcher equals a fresh one fed what is left."""
    grammar = cache.compile(StructuredOutputsParams(**spec))
    after = tokenizer.special_id(THINK_END) if thinking else None
    matcher, history = grammar.matcher(after=after), []
    for forward, number in steps:
        if forward:
            choices = sorted(allowed(matcher))
            if after in choices and number % 3 == 0:  # the thinking ends soon, or little would be tested
                choices = [after]
            token_id = choices[number % len(choices)]
            if matcher.consume(token_id):
                history.append(token_id)
        else:
            count = number % (len(history) + 1)
            matcher.rollback(count)
            history = history[: len(history) - count]
    fresh = grammar.matcher(after=after)
    assert all(fresh.consume(token_id) for token_id in history)
    assert np.array_equal(matcher.mask(), fresh.mask())
    assert matcher.is_accepting == fresh.is_accepting
    assert matcher.is_stopped == fresh.is_stopped


def test_matchers_of_one_grammar_are_independent(cache, tokenizer):
    grammar = cache.compile(StructuredOutputsParams(json=PERSON))
    first, second = grammar.matcher(), grammar.matcher()
    start = second.mask()
    feed(first, tokenizer, '{"name"')
    assert np.array_equal(second.mask(), start)


def test_the_grammar_may_begin_behind_the_thinking(cache, tokenizer):
    end = tokenizer.special_id(THINK_END)
    matcher = cache.compile(StructuredOutputsParams(choice=("yes",))).matcher(after=end)
    assert feed(matcher, tokenizer, "the rest")
    assert not matcher.is_accepting
    assert tokenizer.eos_id not in allowed(matcher)
    assert tokenizer.special_id(ASSISTANT) not in allowed(matcher)
    assert not matcher.consume(tokenizer.special_id(THINK))
    assert matcher.consume(end)
    assert not feed(matcher, tokenizer, "no")
    assert feed(matcher, tokenizer, "yes")
    assert matcher.is_stopped


@pytest.mark.parametrize("text", ["yes", 'a "quoted" \\ /', "tab\tnew\nline", "é😀\x00\u2028", ""])
def test_a_choice_is_any_text_as_it_is(cache, text):
    choice = ("yes", 'a "quoted" \\ /', "tab\tnew\nline", "é😀\x00\u2028", "")
    assert accepts(cache, text, choice=choice)
    assert not accepts(cache, text + "!", choice=choice)


@pytest.mark.parametrize("regex", [r"[a-z]{2}/\d+", r"^a|b$", r'"x"\n?', r"(?i)ab"])
@pytest.mark.parametrize("text", ["ab/12", "a", "b", '"x"', '"x"\n', "AB", "ab", "ab/"])
def test_a_regex_holds_for_the_whole_text(cache, regex, text):
    assert accepts(cache, text, regex=regex) == bool(re.fullmatch(regex, text))


def test_white_space_is_bounded_and_never_at_the_ends(cache):
    for text in (
        '{"a":1}',
        '{ "a" : [ 1 , 2 ] }',
        '{\n  "a": {\n    "b": 1\n  }\n}',
        '{\r\n\t"a": 1\r\n}',
        "{}",
    ):
        assert json.loads(text) is not None
        assert accepts(cache, text, json_object=True)
    for text in (
        ' {"a":1}',
        '{"a":1} ',
        '{  "a":1}',
        '{\n\n"a":1}',
        "{\n" + " " * 65 + '"a":1}',
        "[1]",
        '"a"',
    ):
        assert not accepts(cache, text, json_object=True)


def test_every_byte_of_a_character_can_come_alone(cache, tokenizer):
    matcher = cache.compile(StructuredOutputsParams(regex="😀|é")).matcher()
    for byte in "😀".encode():
        token_id = next(i for i in range(WIDTH) if tokenizer.token_bytes(i) == bytes([byte]))
        assert not matcher.is_accepting
        assert matcher.consume(token_id)
    assert matcher.is_accepting


def test_equal_requests_share_a_grammar_and_old_ones_are_forgotten(cache):
    first = cache.compile(StructuredOutputsParams(json=PERSON))
    assert cache.compile(StructuredOutputsParams(json=json.dumps(PERSON))) is first
    assert cache.compile(StructuredOutputsParams(json={**PERSON, "title": "not a rule"})) is first
    for number in range(40):
        cache.compile(StructuredOutputsParams(regex=f"a{number}"))
    assert cache.compile(StructuredOutputsParams(json=PERSON)) is not first


def test_more_than_one_end_token(tokenizer):
    cache = GrammarCache(tokenizer, WIDTH, eos_ids=(tokenizer.eos_id, tokenizer.special_id(ASSISTANT)))
    try:
        matcher = cache.compile(StructuredOutputsParams(choice=("yes",))).matcher()
        feed(matcher, tokenizer, "yes")
        assert allowed(matcher) == {tokenizer.eos_id, tokenizer.special_id(ASSISTANT)}
        assert matcher.consume(tokenizer.special_id(ASSISTANT))
    finally:
        cache.close()


def test_nothing_follows_the_last_letter_of_a_choice(cache, tokenizer):
    matcher = cache.compile(StructuredOutputsParams(choice=("no",))).matcher()
    assert feed(matcher, tokenizer, "no")
    assert matcher.is_stopped


def test_logits_narrower_than_the_tokenizer_are_refused(tokenizer):
    with pytest.raises(TokenizerError, match="only 100 rows"):
        GrammarCache(tokenizer, 100)


def test_without_llguidance_the_sentence_says_what_to_install(tokenizer, monkeypatch):
    real = builtins.__import__

    def absent(name, *more, **given):
        if name.startswith("llguidance"):
            raise ImportError(name)
        return real(name, *more, **given)

    monkeypatch.setattr(builtins, "__import__", absent)
    for spec in ({"regex": "a"}, {"json_object": True}):
        with pytest.raises(MissingDependencyError, match="pip install llguidance"):
            GrammarCache(tokenizer, WIDTH).compile(StructuredOutputsParams(**spec))


def test_a_grammar_too_complex_for_a_token_fails_as_a_config_error(cache):
    schema = {"type": "object", "properties": {f"p{i}": {"type": "integer"} for i in range(600)}}
    with pytest.raises(ConfigError, match="make it smaller"):
        feed(cache.compile(StructuredOutputsParams(json=schema)).matcher(), cache.tokenizer, '{"p0": 1')


@given(ids=st.sets(st.integers(0, 99)), width=st.integers(100, 140))
def test_apply_mask_agrees_with_a_loop(ids, width):
    logits_W = torch.arange(width, dtype=torch.float32)
    expected = [float(i) if i in ids else float("-inf") for i in range(width)]
    mask = pack_mask(ids, 100)
    assert mask.shape == (4,)
    assert mask.dtype == np.uint32
    assert apply_mask(logits_W, mask) is logits_W
    assert logits_W.tolist() == expected
