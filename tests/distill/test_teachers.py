"""A local teacher: the same answers however often it is interrupted, and faults of one ask alone."""

import pytest

from shoestring.distill.teachers import LocalTeacher
from shoestring.engine.engine import Engine
from shoestring.engine.llm import LLM
from shoestring.engine.request import SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.remote.collector import ChatRequest
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.overlong import OVERLONG


@pytest.fixture(scope="module")
def llm(teacher_folder):
    tokenizer = Tokenizer.load(teacher_folder)
    settings = EngineSettings(max_num_seqs=3, max_model_len=64)
    checkpoint = Checkpoint.open(teacher_folder)
    return LLM.of(Engine(load_model(checkpoint), tokenizer, settings), checkpoint)


@pytest.fixture
def ask_all(llm):
    def ask(asks, *, thinking=None, stop_after=None, overlong="filter"):
        params = SamplingParams(max_tokens=8, seed=5)
        teacher = LocalTeacher(llm, "t", params=params, thinking=thinking, overlong=overlong)
        got, running = [], teacher.replies(asks)
        for answer in running:
            if answer is not None:
                got.append(answer)
            if stop_after is not None and len(got) >= stop_after:
                running.close()
        assert not llm.engine.has_unfinished() or stop_after
        while llm.engine.has_unfinished():
            llm.engine.step()
        assert llm.engine.counters.pages_used == 0
        return got

    return ask


def ask(number, n=2, start=0, text="hi"):
    return ChatRequest(
        id=str(number), messages=({"role": "user", "content": f"{text} {number}"},), n=n, start=start
    )


def by_ask(answers):
    found = {}
    for answer in answers:
        found.setdefault(answer.id, []).append(answer.text)
    return found


def test_every_ask_gets_its_answers_and_the_same_ones_again(ask_all):
    got = ask_all([ask(i) for i in range(7)])
    texts = by_ask(got)
    assert {key: len(found) for key, found in texts.items()} == {str(i): 2 for i in range(7)}
    assert all(answer.finish_reason in ("stop", "length") and 0 < answer.tokens <= 8 for answer in got)
    assert len({text for found in texts.values() for text in found}) > 7
    assert by_ask(ask_all([ask(i) for i in (6, 3)])) == {key: texts[key] for key in ("6", "3")}


def test_later_answers_are_those_that_would_have_come(ask_all):
    [whole] = by_ask(ask_all([ask(0, n=4)])).values()
    [first] = by_ask(ask_all([ask(0, n=1)])).values()
    [rest] = by_ask(ask_all([ask(0, n=3, start=1)])).values()
    assert first + rest == whole


def test_thinking_that_the_prompt_opened_is_part_of_the_answer(ask_all):
    assert all(answer.text.startswith("<think>") for answer in ask_all([ask(0)], thinking=True))


def test_a_prompt_that_does_not_fit_fails_alone(ask_all):
    got = ask_all([ask(0), ask(1, text="x" * 500), ask(2)])
    assert [answer.id for answer in got if answer.fault] == ["1"]
    assert OVERLONG in [answer.fault for answer in got]
    assert len([answer for answer in got if answer.fault is None]) == 4


def test_a_prompt_that_does_not_fit_is_shortened_or_refused_where_that_is_said(ask_all):
    asks = [ask(0), ask(1, text="x" * 500)]
    got = ask_all(asks, overlong="truncate")
    assert sorted(answer.id for answer in got if answer.fault is None) == ["0", "0", "1", "1"]
    with pytest.raises(ConfigError, match=r"--set collect\.overlong=filter"):
        ask_all(asks, overlong="error")


def test_closing_it_leaves_the_engine_usable(ask_all):
    assert len(ask_all([ask(i) for i in range(9)], stop_after=1)) == 1
    assert len(ask_all([ask(0)])) == 2
