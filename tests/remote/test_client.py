"""One chat completion from servers that behave and servers that do not, over the loopback."""

import asyncio
import json
import threading
import time

import pytest

from shoestring.errors import ConfigError
from shoestring.remote.budget import Account, Budget
from shoestring.remote.client import OUT_OF_MONEY, ChatClient
from shoestring.remote.config import RemoteConfig
from shoestring.remote.wire import Refusal

KEY = "sk-very-secret-123"
BODY = {"messages": [{"role": "user", "content": "q0"}], "max_tokens": 100, "temperature": 0.6}


def complete(url, body=BODY, account=None, **changes):
    """One completion with a client of its own."""
    config = RemoteConfig(**{"model": "m", "timeout_s": 5.0, "attempts": 3} | changes)

    async def run():
        async with ChatClient(url, config) as client:
            return await client.complete(body, account or Account(Budget(config.cost_cap)))

    return asyncio.run(run())


def test_the_request_is_as_servers_expect_it(serve, echo, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", KEY)
    caplog.set_level("DEBUG")
    server, url = serve(echo)
    completion = complete(
        f"{url}/chat/completions/", key_env="MY_KEY", extra={"thinking": {"type": "enabled"}}
    )
    path, body = server.seen[0]
    assert path == "/v1/chat/completions"
    assert body == BODY | {"model": "m", "thinking": {"type": "enabled"}}
    assert server.headers_seen[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in caplog.text
    assert [choice.text for choice in completion.choices] == ["re: q0"]
    assert (completion.prompt_tokens, completion.completion_tokens) == (10, 20)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 520, 529])
def test_what_passes_is_tried_again(serve, echo, status):
    server, url = serve(lambda n, body: (status, {}, b"busy") if n < 2 else echo(n, body))
    assert complete(url).choices[0].text == "re: q0"
    assert len(server.seen) == 3


def test_a_request_of_which_all_attempts_fail_is_refused(serve):
    server, url = serve(lambda *_: (429, {}, b"busy"))
    with pytest.raises(Refusal, match="status 429: busy"):
        complete(url)
    assert len(server.seen) == 3


def test_retry_after_is_honored_by_all(serve, echo):
    times = []

    def play(number, body):
        times.append(time.monotonic())
        return (429, {"Retry-After": "0.4"}, b"") if number == 0 else echo(number, body)

    _, url = serve(play)

    async def run():
        async with ChatClient(url, RemoteConfig(model="m")) as client:
            first = asyncio.create_task(client.complete(BODY, Account(Budget(None))))
            while not client._quiet_until_s:
                await asyncio.sleep(0.01)
            await asyncio.gather(first, *[client.complete(BODY, Account(Budget(None))) for _ in range(2)])

    asyncio.run(run())
    assert len(times) == 4
    assert times[1] - times[0] >= 0.4


def test_a_reply_that_is_cut_off_is_tried_again(serve, echo):
    def play(number, body):
        status, _, data = echo(number, body)
        if number:
            return status, {}, data
        return status, {"Content-Length": str(len(data) + 50), "Connection": "close"}, data

    server, url = serve(play)
    assert complete(url).choices[0].text == "re: q0"
    assert len(server.seen) == 2


@pytest.mark.parametrize("status", [200, 500])
def test_a_reply_that_is_too_long_is_not_read_to_its_end(serve, status):
    data = b"x" * 30_000_000
    _, url = serve(lambda *_: (status, {}, data))
    with pytest.raises(Refusal, match="longer than 10,000 bytes" if status == 200 else "status 500"):
        complete(url, attempts=1, max_reply_bytes=10_000)


def test_a_compressed_reply_is_not_unpacked(serve):
    _, url = serve(lambda *_: (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"))
    with pytest.raises(Refusal, match="compressed"):
        complete(url, attempts=1)


def test_a_hanging_server_costs_its_time_limit_and_no_more(serve, echo):
    let_go = threading.Event()

    def play(number, body):
        let_go.wait(20)
        return echo(number, body)

    _, url = serve(play)
    began = time.monotonic()
    with pytest.raises(Refusal, match=r"within 0\.2 s"):
        complete(url, attempts=1, timeout_s=0.2)
    assert time.monotonic() - began < 5
    let_go.set()


@pytest.mark.parametrize(("status", "hint"), [(401, "check the key"), (404, "/v1"), (302, "check the URL")])
def test_a_server_that_refuses_us_is_a_mistake_in_the_settings(serve, monkeypatch, status, hint):
    monkeypatch.setenv("MY_KEY", KEY)
    message = json.dumps({"error": {"message": f"wrong key {KEY}\x1b[2J" + "x" * 9999}}).encode()
    server, url = serve(lambda *_: (status, {"Location": "http://127.0.0.1:1/"}, message))
    with pytest.raises(ConfigError, match=hint) as caught:
        complete(url, key_env="MY_KEY")
    assert len(server.seen) == 1
    assert KEY not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("play", "cost"),
    [
        (lambda *_: (200, {}, b"lost"), 3.0),  # three replies that the server may charge in full
        (lambda *_: (429, {}, b""), 0.0),
        (lambda *_: (400, {}, b""), 0.0),
        (None, 0.020),  # at what the reply says
    ],
)
def test_the_cost_of_a_request_is_what_it_may_have_been(serve, echo, play, cost):
    _, url = serve(play or echo)
    budget = Budget(None)
    try:
        complete(
            url, account=Account(budget), price_in=0.0, price_out=1000.0, body=BODY | {"max_tokens": 1000}
        )
    except Refusal:
        assert play is not None
    assert budget.total_cost == pytest.approx(cost)


def test_a_request_over_the_cap_is_not_sent(serve, echo):
    server, url = serve(echo)
    with pytest.raises(Refusal, match=OUT_OF_MONEY):
        complete(url, price_in=1.0, price_out=1.0, cost_cap=1e-6)
    assert server.seen == []
