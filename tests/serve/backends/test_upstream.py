import asyncio
from contextlib import aclosing

import pytest

import shoestring.serve.backends.upstream as upstream_file
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.address import list_models, read_address
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import ChatRequest, TextRequest
from shoestring.serve.backends.upstream import TYPICAL_TOKENS, Upstream, predicted_tokens

HELLO = ChatRequest(messages=({"role": "user", "content": "hello"},), sampling=SamplingParams(max_tokens=9))


def run(far_servers, work):
    """Run `work(upstream, server)`."""

    async def main():
        async with far_servers(1) as (server,):
            address = read_address(server.url)
            upstream = Upstream(address, await list_models(address))
            try:
                await work(upstream, server)
            finally:
                await upstream.close()

    asyncio.run(main())


async def texts(upstream):
    async with aclosing(upstream.deltas("m", HELLO)) as deltas:
        return [delta.text async for delta in deltas if delta.text]


def test_open_requests_and_their_tokens_are_counted_until_the_end(far_servers):
    async def work(upstream, server):
        server.silent_after = 1
        deltas = upstream.deltas("m", HELLO)
        assert [(await anext(deltas)).text for _ in range(2)] == ["", "a0 "]
        assert (upstream.open_requests, upstream.open_tokens) == (1, predicted_tokens(HELLO))
        await deltas.aclose()
        assert (upstream.open_requests, upstream.open_tokens) == (0, 0.0)

    run(far_servers, work)


@pytest.mark.parametrize("num_taken", [1, 2])
def test_closing_a_stream_closes_its_connection(far_servers, until, num_taken):
    """Also before its first token was asked for."""

    async def work(upstream, server):
        server.silent_after = 1
        deltas = upstream.deltas("m", HELLO)
        for _ in range(num_taken):
            await anext(deltas)
        await until(lambda: server.num_open == 1)
        await deltas.aclose()
        await until(lambda: server.num_open == 0)

    run(far_servers, work)


def test_a_probe_that_gets_a_token_lets_requests_in_again(far_servers, caplog):
    async def work(upstream, server):
        await upstream.probe()
        assert (server.num_probes, upstream.breaker.state) == (1, "closed")
        server.kill()
        await upstream.probe()
        assert upstream.breaker.state == "open"
        await upstream.probe()
        assert upstream.breaker.state == "open"
        await server.up()
        await upstream.probe()
        assert upstream.breaker.state == "closed"
        assert upstream.num_failures == 2

    run(far_servers, work)
    assert [record.message.split(":")[-1] for record in caplog.records if "out" in record.message]
    assert sum(" is out: " in record.message for record in caplog.records) == 1
    assert sum(" is back" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize("change", [{"status": 500}, {"status": 503}, {"status": 401}, {"broken_after": 0}])
def test_a_probe_without_a_token_takes_a_server_out(far_servers, change):
    async def work(upstream, server):
        vars(server).update(change)
        await upstream.probe()
        assert upstream.breaker.state == "open"

    run(far_servers, work)


def test_a_server_that_hangs_is_out(far_servers, until, monkeypatch):
    monkeypatch.setattr(upstream_file, "PROBE_TIMEOUT_S", 0.05)

    async def work(upstream, server):
        server.silent_after = 0
        await upstream.probe()
        assert upstream.breaker.state == "open"
        await until(lambda: server.num_open == 0)

    run(far_servers, work)


def test_a_server_without_chats_is_asked_for_a_text(far_servers):
    async def work(upstream, server):
        ask = server._answer

        async def refuse_chats(body, reader, writer):
            if "messages" in body:
                await server._send_json(writer, 400, {"error": {"message": "no template"}})
            else:
                await ask(body, reader, writer)

        server._answer = refuse_chats
        await upstream.probe()
        assert (server.num_probes, upstream.breaker.state) == (1, "closed")

    run(far_servers, work)


def test_a_failure_is_followed_by_a_probe_at_once(far_servers, until, monkeypatch):
    """By the clock there would be none before the test ends."""
    monkeypatch.setattr(upstream_file, "PROBE_S", 3600.0)
    monkeypatch.setattr(upstream_file, "PROBE_GAP_S", 0.0)

    async def work(upstream, server):
        upstream.start()
        await until(lambda: server.num_probes == 1)
        server.status = 500
        with pytest.raises(RequestError):
            await texts(upstream)
        await until(lambda: upstream.breaker.state == "open")

    run(far_servers, work)


def test_tokens_are_as_good_as_a_probe(far_servers, until, monkeypatch):
    monkeypatch.setattr(upstream_file, "PROBE_GAP_S", 0.0)

    async def work(upstream, server):
        await texts(upstream)
        upstream.start()
        await asyncio.sleep(0.05)
        assert server.num_probes == 0
        monkeypatch.setattr(upstream_file, "PROBE_S", 0.0)
        upstream._wake.set()
        await until(lambda: server.num_probes > 0)

    run(far_servers, work)


def test_a_request_that_is_wrong_says_nothing_of_the_server(far_servers):
    async def work(upstream, server):
        server.status = 400
        for _ in range(5):
            with pytest.raises(RequestError, match="not now"):
                await texts(upstream)
        assert (upstream.breaker.state, upstream.num_failures) == ("closed", 0)

    run(far_servers, work)


def test_another_model_at_the_same_address_is_learned(far_servers):
    async def work(upstream, server):
        server.kill()
        await upstream.probe()
        server.models = ["n"]
        await server.up()
        await upstream.probe()
        assert list(upstream.cards) == ["n"]
        assert upstream.takes("n")
        assert not upstream.takes("m")

    run(far_servers, work)


def test_a_prediction_counts_prompt_and_reply():
    def chat(**sampling):
        messages = ({"role": "user", "content": "x" * 400},)
        return ChatRequest(messages=messages, sampling=SamplingParams(**sampling))

    assert predicted_tokens(chat(max_tokens=10)) == 110
    assert predicted_tokens(chat(max_tokens=10, n=3)) == 130
    assert predicted_tokens(chat(max_tokens=None)) == 100 + TYPICAL_TOKENS
    assert predicted_tokens(TextRequest(prompt=(1,) * 50, sampling=SamplingParams(max_tokens=10))) == 60
