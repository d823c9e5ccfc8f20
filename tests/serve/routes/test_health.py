import threading
import time
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

import shoestring.serve.backends.local as local_file
from shoestring.serve.app import build_app
from shoestring.serve.backends.address import Address
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.pool import PoolBackend
from shoestring.serve.backends.upstream import Upstream
from shoestring.serve.service import Service


@pytest.fixture
def own(new_service) -> Iterator[TestClient]:
    """A client of a service that the test may break."""
    with TestClient(build_app(new_service())) as client:
        yield client


def wait_for_status(client, path, status):
    end = time.monotonic() + 20
    while client.get(path).status_code != status:
        assert time.monotonic() < end
        time.sleep(0.01)
    return client.get(path).json()


def test_a_model_that_makes_tokens_is_healthy(own):
    assert own.get("/health").json() == {"status": "ok", "dead": [], "servers": {}}
    assert own.get("/ready").json() == {"status": "ready"}


def test_an_engine_that_hangs_in_a_step_is_seen(own, monkeypatch):
    release = threading.Event()
    engine = own.app.state.service.backends["mini"].engine
    step = engine.step
    monkeypatch.setattr(engine, "step", lambda: (release.wait(60), step())[1])
    monkeypatch.setattr(local_file, "HEARTBEAT_LIMIT_S", 0.7)  # its thread beats every 0.5 s without work
    body = {"model": "mini", "prompt": "1", "max_tokens": 1}
    asking = threading.Thread(target=own.post, args=("/v1/completions",), kwargs={"json": body})
    asking.start()
    assert wait_for_status(own, "/health", 503) == {"status": "failed", "dead": ["mini"], "servers": {}}
    assert wait_for_status(own, "/ready", 503) == {"status": "failed"}
    release.set()
    asking.join()
    wait_for_status(own, "/health", 200)


def test_an_engine_that_failed_is_seen(own, monkeypatch):
    def fail():
        raise RuntimeError("broken")

    monkeypatch.setattr(own.app.state.service.backends["mini"].engine, "step", fail)
    reply = own.post("/v1/completions", json={"model": "mini", "prompt": "1", "max_tokens": 1})
    assert reply.status_code == 503
    assert wait_for_status(own, "/health", 503)["dead"] == ["mini"]


def test_servers_of_a_model_are_counted():
    card = ModelCard(id="m", max_model_len=99, created_s=0)
    upstreams = [Upstream(Address(url=f"http://127.0.0.1:{port}/v1"), {"m": card}) for port in (1, 2)]
    client = TestClient(build_app(Service({"m": PoolBackend("m", upstreams)})))  # without its probes
    assert client.get("/health").json() == {"status": "ok", "dead": [], "servers": {"m": "2 of 2"}}
    upstreams[0].breaker.probe_ended(ok=False)
    assert client.get("/health").json()["servers"] == {"m": "1 of 2"}
    assert client.get("/ready").status_code == 200
    upstreams[1].breaker.probe_ended(ok=False)
    assert client.get("/health").json() == {"status": "failed", "dead": ["m"], "servers": {"m": "0 of 2"}}
    assert client.get("/ready").json() == {"status": "failed"}
