"""Several callers of one engine: each gets its own outputs, and who stops listening frees pages."""

import gc

import pytest

from shoestring.engine.dispatch import Dispatcher
from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError


@pytest.fixture
def dispatcher(gqa):
    return Dispatcher(Engine(gqa, None, EngineSettings(max_num_seqs=4, speculation="off")))


def request(name, prompt=(1, 2, 3), **params):
    params = SamplingParams(**{"temperature": 0, "ignore_eos": True, "max_tokens": 5, **params})
    return Request(request_id=name, prompt_token_ids=prompt, sampling_params=params)


def test_callers_get_their_own_outputs_whoever_steps(dispatcher, gqa, naive):
    first, second = [], []
    dispatcher.add([request("a"), request("b", (4, 5))], first.append)
    dispatcher.step()
    dispatcher.add([request("c", (6,))], second.append)
    while dispatcher.engine.has_unfinished():
        dispatcher.step()
    last = {output.request_id: output.outputs[0].token_ids for output in (*first, *second)}
    assert {output.request_id for output in first} == {"a", "b"}
    assert {output.request_id for output in second} == {"c"}
    assert last["b"] == naive(gqa, [4, 5], 5)
    assert [output.finished for output in second] == [False] * 4 + [True]


def test_the_requests_of_one_call_are_all_accepted_or_none(dispatcher):
    with pytest.raises(ConfigError, match="0 tokens"):
        dispatcher.add([request("a"), request("b", ())], print)
    with pytest.raises(ConfigError, match="still in use"):
        dispatcher.outputs([request("a"), request("a")])
    assert not dispatcher.engine.has_unfinished()
    assert dispatcher.engine.counters.requests == dispatcher.engine.counters.waiting == 0
    assert len(list(dispatcher.outputs([request("a")]))) == 5


def test_an_abort_delivers_nothing_more(dispatcher):
    outputs = []
    dispatcher.add([request("a"), request("b")], outputs.append)
    dispatcher.step()
    dispatcher.abort(["a", "nobody"])
    before = len(outputs)
    while dispatcher.engine.has_unfinished():
        dispatcher.step()
    assert {output.request_id for output in outputs[before:]} == {"b"}


def test_a_caller_that_raises_loses_its_own_request_only(dispatcher):
    good: list = []

    def bad(output):
        raise RuntimeError("gone")

    dispatcher.add([request("a")], bad)
    dispatcher.add([request("b")], good.append)
    while dispatcher.engine.has_unfinished():
        dispatcher.step()
    assert good[-1].finished
    assert len(good[-1].outputs[0].token_ids) == 5
    assert (dispatcher.engine.counters.aborted, dispatcher.engine.counters.pages_used) == (1, 0)


@pytest.mark.parametrize("end", ["close", "with", "lost", "unread"])
def test_a_stream_without_a_reader_frees_its_pages(dispatcher, end):
    stream = dispatcher.outputs([request("a"), request("b")])
    if end != "unread":
        next(stream)
    if end == "close":
        stream.close()
        assert list(stream) == []
    elif end == "with":
        with stream:
            pass
    else:
        del stream
        gc.collect()
    assert dispatcher.engine.counters.pages_used == dispatcher.engine.counters.waiting == 0


def test_an_error_in_a_step_aborts_the_requests(dispatcher, monkeypatch):
    stream = dispatcher.outputs([request("a")])
    next(stream)
    with monkeypatch.context() as patched:
        patched.setattr(dispatcher.engine, "step", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            next(stream)
    assert dispatcher.engine.counters.pages_used == 0
    assert list(stream) == []
