import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

import shoestring.serve.backends.upstream as upstream_file
from shoestring.errors import ConfigError
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.address import Address, list_models, read_address
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.pool import PoolBackend, open_pools
from shoestring.serve.backends.reply import fold
from shoestring.serve.backends.request import ChatRequest
from shoestring.serve.backends.upstream import Upstream


def ask(text):
    return ChatRequest(messages=({"role": "user", "content": text},), sampling=SamplingParams(max_tokens=9))


async def text_of(pool, request):
    work = await pool.prepare(request)
    return (await fold(await work.start(), 1)).choices[0].text


@pytest.fixture
def pooled(far_servers):
    """Runs `work(pool, servers)` with a pool of model m on so many servers."""

    @asynccontextmanager
    async def pool_of(count, weights):
        async with far_servers(count) as servers:
            addresses = [read_address(f"{s.url},weight={w}") for s, w in zip(servers, weights, strict=True)]
            pool = PoolBackend("m", [Upstream(each, await list_models(each)) for each in addresses])
            try:
                yield pool, servers
            finally:
                await pool.close()

    def run(work, count=2, weights=(1, 1, 1)):
        async def main():
            async with pool_of(count, weights[:count]) as (pool, servers):
                await work(pool, servers)

        asyncio.run(main())

    return run


def test_a_conversation_stays_with_its_server_and_others_are_spread(pooled):
    async def work(pool, servers):
        texts = [str(number) for number in range(40)] * 2
        for text in texts:
            await text_of(pool, ask(text))
        for server in servers:
            counts = Counter(body["messages"][0]["content"] for body in server.requests)
            assert len(counts) > 5
            assert set(counts.values()) == {2}

    pooled(work)


def test_work_beyond_the_slack_goes_to_the_least_busy(pooled):
    async def work(pool, servers):
        busy = pool._choose(ask("x"))
        busy.open_tokens, busy.open_requests = 1e6, 1
        assert pool._choose(ask("x")) is not busy

    pooled(work)


@pytest.mark.parametrize("change", [{"status": 500}, {"status": 503}, {"status": 429}, {"broken_after": 0}])
def test_another_server_is_asked_before_the_first_token(pooled, change):
    async def work(pool, servers):
        request = ask("x")
        name = pool._choose(request).name
        bad, good = sorted(servers, key=lambda server: f":{server.port}" not in name)
        vars(bad).update(change)
        assert await text_of(pool, request) == "".join(f"{good.name}{n} " for n in range(3))
        assert (len(bad.requests), len(good.requests)) == (1, 1)

    pooled(work)


def test_a_server_that_is_gone_costs_no_request_and_is_out_after_three(pooled):
    async def work(pool, servers):
        servers[0].kill()
        replies = [await text_of(pool, ask(str(number))) for number in range(40)]
        assert set(replies) == {"b0 b1 b2 "}
        assert [upstream.breaker.state for upstream in pool.upstreams] == ["open", "closed"]
        assert pool.upstreams[0].num_failures == 3
        assert pool.is_healthy

    pooled(work)


def test_no_request_is_asked_three_times(pooled):
    async def work(pool, servers):
        for server in servers:
            server.status = 500
        with pytest.raises(RequestError) as caught:
            await text_of(pool, ask("x"))
        assert caught.value.status == 503
        assert sum(len(server.requests) for server in servers) == 2

    pooled(work, count=3)


def test_after_the_first_token_a_failure_is_the_clients_to_know(pooled):
    async def work(pool, servers):
        for server in servers:
            server.broken_after = 2
        with pytest.raises(RequestError, match=r"broke off|ended before"):
            await text_of(pool, ask("x"))
        assert sum(len(server.requests) for server in servers) == 1

    pooled(work)


def test_a_wrong_request_is_asked_once_and_its_error_comes_through(pooled):
    async def work(pool, servers):
        for server in servers:
            server.status = 400
        with pytest.raises(RequestError, match="not now") as caught:
            await text_of(pool, ask("x"))
        assert caught.value.kind == "invalid"
        assert sum(len(server.requests) for server in servers) == 1

    pooled(work)


def test_without_a_server_the_client_hears_when_to_come_back(pooled):
    async def work(pool, servers):
        for upstream in pool.upstreams:
            upstream.breaker.probe_ended(ok=False)
        assert not pool.is_healthy
        with pytest.raises(RequestError, match="no server of m answers") as caught:
            await pool.prepare(ask("x"))
        assert caught.value.status == 503
        assert caught.value.retry_after_s > 0

    pooled(work)


def test_only_streams_of_a_killed_server_are_lost_and_it_comes_back(pooled, until, monkeypatch):
    monkeypatch.setattr(upstream_file, "REOPEN_S", 0.01)
    monkeypatch.setattr(upstream_file, "PROBE_GAP_S", 0.0)

    async def work(pool, servers):
        pool.start()
        for server in servers:
            server.silent_after = 2
        tasks = [asyncio.ensure_future(text_of(pool, ask(str(number)))) for number in range(20)]
        await until(lambda: sum(server.num_open for server in servers) == 20)
        lost = len(servers[0].requests)
        for server in servers:
            server.silent_after = None
        servers[0].kill()
        await until(lambda: sum(task.done() for task in tasks) == lost)
        assert all(isinstance(task.exception(), RequestError) for task in tasks if task.done())
        replies = await asyncio.gather(*(text_of(pool, ask(f"new {number}")) for number in range(20)))
        assert set(replies) == {"b0 b1 b2 "}
        await until(lambda: pool.upstreams[0].breaker.state == "open")
        await servers[0].up()
        await until(lambda: pool.upstreams[0].breaker.state == "closed")
        replies = [await text_of(pool, ask(f"again {number}")) for number in range(40)]
        assert set(replies) == {"a0 a1 a2 ", "b0 b1 b2 "}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert [upstream.open_requests for upstream in pool.upstreams] == [0, 0]

    pooled(work)


@pytest.mark.parametrize("num_taken", [0, 1])
def test_a_client_that_leaves_frees_the_server(pooled, until, num_taken):
    """Whether or not it waited for a delta."""

    async def work(pool, servers):
        for server in servers:
            server.silent_after = 1
        deltas = await (await pool.prepare(ask("x"))).start()
        for _ in range(num_taken):
            await anext(deltas)
        await until(lambda: sum(server.num_open for server in servers) == 1)
        await deltas.aclose()
        await until(lambda: sum(server.num_open for server in servers) == 0)
        assert sum(upstream.open_requests for upstream in pool.upstreams) == 0

    pooled(work)


def test_the_largest_request_is_what_the_smallest_server_takes(monkeypatch, far_servers):
    async def main():
        async with far_servers(2) as servers:
            addresses = [read_address(server.url) for server in servers]
            cards = [await list_models(address) for address in addresses]
            monkeypatch.setitem(vars(cards[0]["m"]), "max_model_len", 99)
            return PoolBackend("m", [Upstream(*each) for each in zip(addresses, cards, strict=True)]).card

    assert asyncio.run(main()).max_model_len == 99


def test_a_model_of_several_servers_is_one_and_a_server_that_is_down_joins_later(monkeypatch, served, caplog):
    (host, port), _ = served
    up, down = Address(url=f"http://{host}:{port}/v1"), Address(url="http://127.0.0.1:9/v1")
    (pool,) = open_pools([up, down])
    assert pool.card.id == "mini"
    assert [upstream.takes("mini") for upstream in pool.upstreams] == [True, False]
    assert "127.0.0.1:9" in caplog.text
    with pytest.raises(ConfigError, match="does not answer"):
        open_pools([down])
