"""Text: equal to decode, never half a character, never a part of a stop string; and why completions end."""

import string
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.engine.draw import SampledTokens
from shoestring.engine.output import CompletionState, RequestState, StopString, TextOutput
from shoestring.engine.request import Logprob, Request, SamplingParams
from shoestring.engine.sequence import Sequence
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.definition import train
from shoestring.tokenizer.special import EOS, THINK, THINK_END, THINK_TAGS

PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train([string.printable * 3, "ab abc abcd stop the end"], 300)


def completion(tokenizer, eos=frozenset(), prompt=(1, 2, 3), **params) -> CompletionState:
    params = SamplingParams(**{"max_tokens": 100, **params})
    request = Request(request_id="r", prompt_token_ids=prompt, sampling_params=params)
    return CompletionState(Sequence.start(request, 0, len(prompt) + params.max_tokens), tokenizer, eos)


@given(st.text(alphabet="ab", min_size=1, max_size=6), st.text(alphabet="abc", max_size=40))
def test_the_automaton_knows_the_longest_beginning(stop, text):
    automaton = StopString(stop)
    for end in range(1, len(text) + 1):
        found = automaton.push(text[end - 1])
        so_far = text[:end]
        assert found == so_far.endswith(stop)
        lengths = [k for k in range(len(stop) + 1) if so_far.endswith(stop[:k])]
        assert automaton.num_matched == max(lengths)


@given(st.lists(st.integers(0, 299), max_size=30))
def test_text_is_decode(tokenizer, ids):
    for skip in (True, False):
        output = TextOutput(tokenizer, SamplingParams(skip_special_tokens=skip))
        seen = ""
        for token_id in ids:
            output.push(token_id)
            assert output.text[: len(seen)] == seen
            seen = output.text[: output.num_final]
        output.finish()
        hidden = {i for text, i in tokenizer.specials.items() if text not in THINK_TAGS} if skip else set()
        assert output.text == tokenizer.decode([i for i in ids if i not in hidden])


@given(st.text("abcé🙂", max_size=25), st.lists(st.text("abcé🙂", min_size=1, max_size=4), max_size=3))
def test_stop_strings_never_show(tokenizer, text, stops):
    ids = tokenizer.encode(text)
    output, found, released = TextOutput(tokenizer, SamplingParams(stop=stops)), None, ""
    for token_id in ids:
        found = output.push(token_id)
        assert output.text.startswith(released), "what was released stays"
        released = output.text[: output.num_final]
        if found is not None:
            break
    output.finish()
    ends = [end for end in range(len(text) + 1) if any(text[:end].endswith(s) for s in stops)]
    if ends:
        longest = max((s for s in stops if text[: ends[0]].endswith(s)), key=len)
        assert found == longest
        assert output.text == text[: ends[0] - len(longest)]
    else:
        assert found is None
        assert output.text == text
    assert not any(stop in output.text for stop in stops)


def test_the_thinking_tags_stay_in_the_text(tokenizer):
    one = completion(tokenizer)
    think, end = tokenizer.special_id(THINK), tokenizer.special_id(THINK_END)
    one.accept(SampledTokens([think, *tokenizer.encode("ab"), end, tokenizer.bos_id, *tokenizer.encode("c")]))
    assert one.output().text == "<think>ab</think>c"


@pytest.mark.parametrize("spelling", ["<tool_call>", "ö", "<｜tool▁calls▁begin｜>"])
def test_added_tokens_that_are_not_special_stay_in_the_text(spelling):
    definition = train(["some text"], 300, 1)
    first = max(definition["model"]["vocab"].values()) + 1
    definition["added_tokens"] = [t for t in definition["added_tokens"] if t["content"] != spelling]
    definition["added_tokens"].append({"id": first, "content": spelling, "special": False} | PLAIN)
    tokenizer = Tokenizer(definition, {"eos_token": EOS})
    output = TextOutput(tokenizer, SamplingParams())
    for token_id in (first, *tokenizer.encode("x"), tokenizer.eos_id):
        output.push(token_id)
    output.finish()
    assert output.text == f"{spelling}x"


def test_the_end_token_ends_and_is_kept_among_the_ids(tokenizer):
    eos = tokenizer.eos_id
    one = completion(tokenizer, eos=frozenset([eos]))
    ids = tokenizer.encode("ab")
    assert one.accept(SampledTokens([*ids, eos, 5, 6])) == [*ids, eos]
    output = one.output()
    assert (output.finish_reason, output.stop_reason, output.text) == ("stop", None, "ab")
    assert output.finished


def test_ignore_eos(tokenizer):
    one = completion(tokenizer, eos=frozenset([tokenizer.eos_id]), ignore_eos=True)
    assert one.accept(SampledTokens([tokenizer.eos_id, 50])) == [tokenizer.eos_id, 50]
    assert one.finish_reason is None


@pytest.mark.parametrize(("include", "text"), [(False, "a"), (True, "ab")])
def test_a_stop_token(tokenizer, include, text):
    (a,), (b,) = tokenizer.encode("a"), tokenizer.encode("b")
    one = completion(tokenizer, stop_token_ids=[b], include_stop_str_in_output=include)
    assert one.accept(SampledTokens([a, b, a])) == [a, b]
    assert (one.output().text, one.stop_reason, one.finish_reason) == (text, b, "stop")


@pytest.mark.parametrize(("include", "text"), [(False, "x"), (True, "xEND")])
def test_a_stop_string(tokenizer, include, text):
    one = completion(tokenizer, stop=["END"], include_stop_str_in_output=include)
    ids = tokenizer.encode("xENDy")
    taken = one.accept(SampledTokens(ids))
    assert taken == ids[: len(taken)]
    assert len(taken) < len(ids)
    assert (one.output().text, one.stop_reason) == (text, "END")


def test_a_stop_string_before_min_tokens_is_text(tokenizer):
    one = completion(tokenizer, stop=["a"], min_tokens=3)
    one.accept(SampledTokens(tokenizer.encode("a!!a!")))
    assert one.output().text == "a!!"


def test_length(tokenizer):
    one = completion(tokenizer, max_tokens=2)
    assert one.accept(SampledTokens([50, 51, 52])) == [50, 51]
    assert one.output().finish_reason == "length"


def test_what_was_held_back_is_released_at_the_end(tokenizer):
    one = completion(tokenizer, stop=["END"], max_tokens=3)
    one.accept(SampledTokens(tokenizer.encode("xE")))
    assert one.output().text == "x"
    one.accept(SampledTokens(tokenizer.encode("N")))
    assert one.output().text == "xEN"


def test_deltas_put_together_are_the_whole(tokenizer):
    ids = [*tokenizer.encode("stop the é end"), 7]
    whole, parts = completion(tokenizer, logprobs=1), completion(tokenizer, logprobs=1, output_kind="delta")
    text, tokens, logprobs, values = "", [], [], []
    for token_id in ids:
        got = SampledTokens([token_id], [-0.5], [{token_id: Logprob(logprob=-0.5, rank=1)}])
        whole.accept(got)
        parts.accept(got)
        delta = parts.output()
        text, tokens, logprobs = text + delta.text, tokens + delta.token_ids, logprobs + delta.logprobs
        values += delta.token_logprobs
    output = whole.output()
    assert (text, tokens, logprobs) == (output.text, output.token_ids, output.logprobs)
    assert values == output.token_logprobs == [-0.5] * len(ids)
    assert output.cumulative_logprob == parts.output().cumulative_logprob == -0.5 * len(ids)


def test_without_a_tokenizer_there_are_only_ids():
    one = completion(None)
    one.accept(SampledTokens([1, 2]))
    assert (one.output().text, one.output().token_ids) == ("", [1, 2])


def test_a_request_is_finished_when_all_its_completions_are(tokenizer):
    one, two = completion(tokenizer, max_tokens=1), completion(tokenizer, max_tokens=2)
    state = RequestState(one.sequence.request, [one, two])
    for each in (one, two):
        each.accept(SampledTokens([50]))
    state.record_token_time(time.monotonic())
    assert not state.output().finished
    two.accept(SampledTokens([51]))
    output = state.output()
    assert output.finished
    assert output.metrics.first_token_s >= output.metrics.arrival_s
    assert EOS not in output.outputs[0].text


def test_what_lies_behind_the_end_is_not_counted(tokenizer):
    one = completion(tokenizer, max_tokens=2, logprobs=0)
    assert one.accept(SampledTokens([50, 51, 52], [-1.0, -2.0, -4.0])) == [50, 51]
    output = one.output()
    assert (output.token_logprobs, output.cumulative_logprob, output.logprobs) == ([-1.0, -2.0], -3.0, [])
