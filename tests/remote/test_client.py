"""Asking servers that behave and servers that do not, over the loopback."""

import asyncio
import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring import config as configs
from shoestring.errors import ConfigError, DataError
from shoestring.remote import wire as remote_wire
from shoestring.remote.client import OUT_OF_MONEY, Ask, Budget, Remote, RemoteConfig

KEY = "sk-very-secret-123"


class Server(ThreadingHTTPServer):
    """Answers each request with what `play(number, body)` returns: (status, headers, bytes), or None."""

    daemon_threads = True

    def __init__(self, play):
        super().__init__(("127.0.0.1", 0), Handler)
        self.play, self.seen, self.headers_seen, self.now, self.most = play, [], [], 0, 0
        self.lock = threading.Lock()

    def handle_error(self, *_):
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.seen)
            server.seen.append((self.path, body))
            server.headers_seen.append(dict(self.headers))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            status, headers, data = server.play(number, body)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)
        finally:
            with server.lock:
                server.now -= 1
        if headers.get("Connection") == "close":
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Starts servers: `server, url = serve(play)`."""
    monkeypatch.setattr(remote_wire, "FIRST_WAIT_S", 0.01)
    running = []

    def start(play):
        server = Server(play)
        running.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server, f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def good(*texts, usage=(10, 20), **message):
    choices = [{"message": {"content": text, **message}, "finish_reason": "stop"} for text in texts]
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if usage else None
    return 200, {}, json.dumps({"choices": choices, "usage": counts}).encode()


def echo(_, body):
    return good(*[f"re: {body['messages'][0]['content']}"] * body.get("n", 1))


def asks(count, n=1):
    return [Ask(id=str(i), messages=({"role": "user", "content": f"q{i}"},), n=n) for i in range(count)]


def remote(url, *, spent=0.0, max_tokens=100, **changes):
    config = RemoteConfig(**{"model": "m", "concurrency": 3, "timeout_s": 5.0, "attempts": 3} | changes)
    teacher = Remote(url, config, max_tokens=max_tokens, temperature=0.6, top_p=0.95)
    teacher.spent = spent
    return teacher


def ask_all(teacher, wanted):
    return [answer for answer in teacher.answers(wanted) if answer is not None]


def test_every_ask_is_answered_and_never_more_at_once_than_allowed(serve):
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


def test_the_request_is_as_servers_expect_it(serve, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level("DEBUG")
    server, url = serve(echo)
    ask_all(
        remote(f"{url}/chat/completions/", key_env="MY_KEY", extra={"thinking": {"type": "enabled"}}), asks(1)
    )
    path, body = server.seen[0]
    assert path == "/v1/chat/completions"
    wanted = {"model": "m", "max_tokens": 100, "temperature": 0.6, "top_p": 0.95}
    assert body == wanted | {"messages": [{"role": "user", "content": "q0"}], "thinking": {"type": "enabled"}}
    assert server.headers_seen[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text


def test_several_answers_at_once(serve):
    server, url = serve(echo)
    got = ask_all(remote(url, price_in=1.0, price_out=1.0), asks(2, n=4))
    assert sorted(a.id for a in got) == ["0"] * 4 + ["1"] * 4
    assert [body["n"] for _, body in server.seen] == [4, 4]
    assert sum(a.cost for a in got) == pytest.approx(2 * 30e-6)


@pytest.mark.parametrize("refuses", [False, True])
def test_a_server_that_gives_one_answer_whatever_n_is_asked_again(serve, refuses):
    def single(number, body):
        if refuses and body.get("n", 1) > 1:
            return 400, {}, b'{"error": {"message": "Only one completion choice is allowed"}}'
        return good(f"answer {number}")

    server, url = serve(single)
    got = ask_all(remote(url, concurrency=1), asks(2, n=3))
    assert len({a.text for a in got}) == len(got) == 6
    assert sum(body.get("n", 1) > 1 for _, body in server.seen) == 1  # it is not asked for more twice


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 520, 529])
def test_what_passes_is_tried_again(serve, status):
    server, url = serve(lambda n, body: (status, {}, b"busy") if n < 2 else echo(n, body))
    [answer] = ask_all(remote(url), asks(1))
    assert answer.fault is None
    assert len(server.seen) == 3


def test_retry_after_is_honored_by_all(serve):
    times = []

    def play(number, body):
        times.append(time.monotonic())
        return (429, {"Retry-After": "0.4"}, b"") if number == 0 else echo(number, body)

    _, url = serve(play)
    ask_all(remote(url, concurrency=1), asks(3))
    assert times[1] - times[0] >= 0.4


def bodies():
    yield b"not json"
    yield b'{"choices": []}'
    yield b'{"choices": [{"message": "text"}]}'
    yield b'{"choices": 1, "usage": NaN}'
    yield b"[" * 100_000
    yield b'{"choices": [{"message": {"content": "\xff\xfe"}}]}'
    yield b"9" * 10_000


@pytest.mark.parametrize("body", list(bodies()), ids=lambda body: repr(body[:20]))
def test_garbage_fails_the_ask_alone(serve, body):
    _, url = serve(
        lambda n, asked: (200, {}, body) if asked["messages"][0]["content"] == "q1" else echo(n, asked)
    )
    got = ask_all(remote(url, concurrency=1), asks(3))
    assert [a.fault is None for a in got] == [True, False, True]


def test_a_reply_that_is_cut_off_is_tried_again(serve):
    def play(number, body):
        status, _, data = echo(number, body)
        if number:
            return status, {}, data
        return status, {"Content-Length": str(len(data) + 50), "Connection": "close"}, data

    server, url = serve(play)
    [answer] = ask_all(remote(url), asks(1))
    assert (answer.text, len(server.seen)) == ("re: q0", 2)


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_that_is_too_long_is_not_read_to_its_end(serve, status):
    data = b"x" * 30_000_000
    _, url = serve(lambda *_: (status, {}, data))
    [answer] = ask_all(remote(url, attempts=1, max_reply_bytes=10_000), asks(1))
    assert answer.text == ""
    assert ("longer than 10,000 bytes" if status == 200 else "status 500") in answer.fault


def test_a_compressed_reply_is_not_unpacked(serve):
    _, url = serve(lambda *_: (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"))
    [answer] = ask_all(remote(url, attempts=1), asks(1))
    assert "compressed" in answer.fault


def test_a_hanging_server_costs_its_time_limit_and_no_more(serve):
    let_go = threading.Event()

    def play(number, body):
        let_go.wait(20)
        return echo(number, body)

    _, url = serve(play)
    began = time.monotonic()
    [answer] = ask_all(remote(url, attempts=1, timeout_s=0.2), asks(1))
    assert time.monotonic() - began < 5
    assert "within 0.2 s" in answer.fault
    let_go.set()


def test_closing_the_iterator_gives_up_what_is_under_way(serve):
    let_go = threading.Event()

    def play(number, body):
        if number:
            let_go.wait(20)
        return echo(number, body)

    _, url = serve(play)
    teacher = remote(url, concurrency=2, price_in=1.0, price_out=1.0)
    running = teacher.answers(asks(2))
    first = next(answer for answer in running if answer is not None)
    began = time.monotonic()
    running.close()
    assert time.monotonic() - began < 5
    assert teacher.spent > first.cost + 100e-6  # what it may have cost is charged
    let_go.set()


@pytest.mark.parametrize(("status", "hint"), [(401, "check the key"), (404, "/v1"), (302, "check the URL")])
def test_a_server_that_refuses_us_ends_it_at_once(serve, monkeypatch, status, hint):
    monkeypatch.setenv("MY_KEY", KEY)
    message = json.dumps({"error": {"message": f"wrong key {KEY}\x1b[2J" + "x" * 9999}}).encode()
    server, url = serve(lambda *_: (status, {"Location": "http://127.0.0.1:1/"}, message))
    with pytest.raises(ConfigError, match=hint) as caught:
        ask_all(remote(url, concurrency=1, key_env="MY_KEY"), asks(5))
    assert len(server.seen) == 1
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_server_that_fails_again_and_again_ends_it(serve):
    server, url = serve(lambda *_: (400, {}, b'{"error": "no"}'))
    with pytest.raises(DataError, match="fails every request"):
        ask_all(remote(url), asks(100))
    assert len(server.seen) < 20


def test_nobody_listening_ends_it(serve):
    server, url = serve(echo)
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="no connection"):
        ask_all(remote(url, attempts=2), asks(20))


PRICES = {"price_in": 1.0, "price_out": 10.0}


@pytest.mark.parametrize("usage", [(10, 100), (10, 5), None])
@pytest.mark.parametrize("lost", [False, True])
def test_the_cap_is_never_passed_whatever_is_under_way(serve, usage, lost):
    """The server may charge the whole of every request it saw; with that the bill stays under the cap."""

    def play(number, body):
        time.sleep(0.01)
        return (200, {}, b"lost") if lost and number % 3 == 0 else good("a", usage=usage)

    server, url = serve(play)
    cap = 0.006
    teacher = remote(url, concurrency=8, cost_cap=cap, attempts=2, **PRICES)
    got = ask_all(teacher, asks(40))
    cheap = usage == (10, 5) and not lost  # settled at what they cost, all of them fit one after the other
    assert cheap or len(server.seen) * (10 + 10 * 100) / 1e6 <= cap or lost
    assert teacher.spent <= cap
    assert sum(a.cost for a in got) == pytest.approx(teacher.spent)
    answered = [a for a in got if a.fault is None]
    assert len(answered) == 40 if cheap else 0 < len(answered) < 40
    assert cheap or OUT_OF_MONEY in {a.fault for a in got}


@given(st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(0.0, 1.0)), max_size=30), st.floats(1e-6, 3.0))
def test_a_budget_never_passes_its_cap_and_never_waits_for_nobody(costs, cap):
    async def one(budget, most, share):
        if not await budget.hold(most):
            return False
        assert budget.spent + most <= cap
        await asyncio.sleep(0)
        await budget.settle(most, most * share)
        return True

    async def all_of_them():
        budget = Budget(cap)
        async with asyncio.timeout(5):
            done = await asyncio.gather(*[one(budget, most, share) for most, share in costs])
        assert budget.spent <= cap * (1 + 1e-9)
        assert all(done) or sum(most for most, _ in costs) > cap * (1 - 1e-9)

    asyncio.run(all_of_them())


def test_what_earlier_runs_spent_counts(serve):
    server, url = serve(echo)
    got = ask_all(remote(url, cost_cap=0.01, spent=0.0099, **PRICES), asks(3))
    assert {a.fault for a in got} == {OUT_OF_MONEY}
    assert server.seen == []


@pytest.mark.parametrize(
    ("url", "word"),
    [
        ("ftp://x", "ftp"),
        ("http://u:p@x/v1", "remote.key_env"),
        ("http://x/?key=1", "key_env"),
        ("http://[", "read"),
    ],
)
def test_urls_that_cannot_be_meant(url, word):
    with pytest.raises(ConfigError, match=word):
        remote(url)


@pytest.mark.parametrize(
    "changes",
    [
        {"concurrency": 0},
        {"timeout_s": 0.0},
        {"price_in": -1.0},
        {"cost_cap": 1.0},
        {"extra": {"n": 3}},
    ],
)
def test_configurations_that_cannot_be_meant(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        RemoteConfig(model="m", **changes)


def test_keys_and_models_are_asked_for_by_name(monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        remote("http://x/v1", key_env="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match=r"remote\.model"):
        remote("http://x/v1", model="")
    monkeypatch.setenv("ODD_KEY", f"{KEY}\nX: y")
    with pytest.raises(ConfigError, match="ODD_KEY") as caught:
        remote("http://x/v1", key_env="ODD_KEY")
    assert KEY not in str(caught.value)


def test_the_config_is_a_recipe(tmp_path):
    config = RemoteConfig(
        model="m", extra={"chat_template_kwargs": {"thinking": True}}, cost_cap=2.0, **PRICES
    )
    configs.save(config, tmp_path / "c.toml")
    assert configs.load(RemoteConfig, tmp_path / "c.toml") == config
