"""Many chat requests at once: all are answered, within the cap, and a server that is gone ends it."""

import json
import threading
import time

import pytest

from shoestring.errors import ConfigError, DataError
from shoestring.remote.collector import OUT_OF_MONEY, ChatCollector, ChatRequest
from shoestring.remote.config import RemoteConfig
from shoestring.tokenizer.overlong import OVERLONG


def asks(count, n=1):
    return [
        ChatRequest(id=str(i), messages=({"role": "user", "content": f"q{i}"},), n=n) for i in range(count)
    ]


def remote(url, *, spent=0.0, max_tokens=100, **changes):
    config = RemoteConfig(**{"model": "m", "concurrency": 3, "timeout_s": 5.0, "attempts": 3} | changes)
    teacher = ChatCollector(url, config, max_tokens=max_tokens, temperature=0.6, top_p=0.95)
    teacher.total_cost = spent
    return teacher


def ask_all(teacher, wanted):
    return [answer for answer in teacher.replies(wanted) if answer is not None]


def test_every_ask_is_answered_and_never_more_at_once_than_allowed(serve, echo):
    def slow(number, body):
        time.sleep(0.02)
        return echo(number, body)

    server, url = serve(slow)
    got = ask_all(remote(url), asks(12))
    assert {(a.id, a.text, a.finish_reason, a.tokens) for a in got} == {
        (str(i), f"re: q{i}", "stop", 20) for i in range(12)
    }
    assert len(got) == len(server.seen) == 12
    assert 1 < server.most <= 3


def test_the_sampling_is_part_of_every_request(serve, echo):
    server, url = serve(echo)
    ask_all(remote(url), asks(1))
    wanted = {"model": "m", "max_tokens": 100, "temperature": 0.6, "top_p": 0.95}
    assert server.seen[0][1] == wanted | {"messages": [{"role": "user", "content": "q0"}]}


def test_several_answers_at_once(serve, echo):
    server, url = serve(echo)
    got = ask_all(remote(url, price_in=1.0, price_out=1.0), asks(2, n=4))
    assert sorted(a.id for a in got) == ["0"] * 4 + ["1"] * 4
    assert [body["n"] for _, body in server.seen] == [4, 4]
    assert sum(a.cost for a in got) == pytest.approx(2 * 30e-6)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_that_gives_one_answer_whatever_n_is_asked_again(serve, refuses, good):
    def single(number, body):
        if refuses and body.get("n", 1) > 1:
            return 400, {}, b'{"error": {"message": "Only one completion choice is allowed"}}'
        return good(f"answer {number}")

    server, url = serve(single)
    got = ask_all(remote(url, concurrency=1), asks(2, n=3))
    assert len({a.text for a in got}) == len(got) == 6
    assert sum(body.get("n", 1) > 1 for _, body in server.seen) == 1  # it is not asked for more twice


def bodies():
    yield b"not json"
    yield b'{"choices": []}'
    yield b'{"choices": [{"message": "text"}]}'
    yield b'{"choices": 1, "usage": NaN}'
    yield b"[" * 100_000
    yield b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'
    yield b"9" * 10_000


@pytest.mark.parametrize("body", list(bodies()), ids=lambda body: repr(body[:20]))
def test_garbage_fails_the_ask_alone(serve, body, echo):
    _, url = serve(
        lambda n, asked: (200, {}, body) if asked["messages"][0]["content"] == "q1" else echo(n, asked)
    )
    got = ask_all(remote(url, concurrency=1), asks(3))
    assert [a.fault is None for a in got] == [True, False, True]


def test_closing_the_iterator_gives_up_what_is_under_way(serve, echo):
    let_go = threading.Event()

    def play(number, body):
        if number:
            let_go.wait(20)
        return echo(number, body)

    _, url = serve(play)
    teacher = remote(url, concurrency=2, price_in=1.0, price_out=1.0)
    running = teacher.replies(asks(2))
    first = next(answer for answer in running if answer is not None)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 5
    assert teacher.total_cost > first.cost + 100e-6  # what it may have cost is charged
    let_go.set()


def test_a_server_that_refuses_us_ends_it_at_once(serve):
    server, url = serve(lambda *_: (401, {}, b"wrong key"))
    with pytest.raises(ConfigError, match="check the key"):
        ask_all(remote(url, concurrency=1), asks(5))
    assert len(server.seen) == 1


def test_a_server_that_fails_again_and_again_ends_it(serve):
    server, url = serve(lambda *_: (400, {}, b'{"error": "no"}'))
    with pytest.raises(DataError, match="fails every request"):
        ask_all(remote(url), asks(100))
    assert len(server.seen) < 20


@pytest.mark.parametrize(
    "words",
    [
        "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens",
        "the request exceeds the available context size, try increasing it",
        "The input (9000 tokens) is longer than the model's context length (4096 tokens).",
        "the prompt has 9,000 tokens; this engine takes 1 to 4,095, shorten it",
    ],
)
def test_prompts_that_are_too_long_fail_alone_however_many_they_are(serve, echo, words):
    def play(number, body):
        if body["messages"][0]["content"] == "q50":
            return echo(number, body)
        return 400, {}, json.dumps({"error": {"message": words}}).encode()

    _, url = serve(play)
    got = ask_all(remote(url), asks(51))
    assert [answer.fault for answer in got].count(OVERLONG) == 50
    assert [answer.id for answer in got if answer.fault is None] == ["50"]


def test_nobody_listening_ends_it(serve, echo):
    server, url = serve(echo)
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="no connection"):
        ask_all(remote(url, attempts=2), asks(20))


PRICES = {"price_in": 1.0, "price_out": 10.0}


@pytest.mark.parametrize("usage", [(10, 100), (10, 5), None])
@pytest.mark.parametrize("lost", [False, True])
def test_the_cap_is_never_passed_whatever_is_under_way(serve, usage, lost, good):
    """The server may charge the whole of every request it saw; with that the sum stays under the cap."""

    def play(number, body):
        time.sleep(0.01)
        return (200, {}, b"lost") if lost and number % 3 == 0 else good("a", usage=usage)

    server, url = serve(play)
    cap = 0.006
    teacher = remote(url, concurrency=8, cost_cap=cap, attempts=2, **PRICES)
    got = ask_all(teacher, asks(40))
    cheap = usage == (10, 5) and not lost  # charged at what they cost, all of them fit one after the other
    assert cheap or len(server.seen) * (10 + 10 * 100) / 1e6 <= cap or lost
    assert teacher.total_cost <= cap
    assert sum(a.cost for a in got) == pytest.approx(teacher.total_cost)
    answered = [a for a in got if a.fault is None]
    assert len(answered) == 40 if cheap else 0 < len(answered) < 40
    assert cheap or OUT_OF_MONEY in {a.fault for a in got}


def test_what_earlier_runs_spent_counts(serve, echo):
    server, url = serve(echo)
    got = ask_all(remote(url, cost_cap=0.01, spent=0.0099, **PRICES), asks(3))
    assert {a.fault for a in got} == {OUT_OF_MONEY}
    assert server.seen == []


def test_it_can_be_asked_again_within_what_is_left_of_the_cap(serve, good):
    def play(number, body):
        time.sleep(0.01)
        return good("a", usage=(10, 5))

    _, url = serve(play)
    teacher = remote(url, concurrency=8, cost_cap=0.006, **PRICES)
    first, second = ask_all(teacher, asks(20)), ask_all(teacher, asks(20))
    assert [answer.fault for answer in first + second] == [None] * 40
    assert teacher.total_cost == pytest.approx(40 * 60e-6)
