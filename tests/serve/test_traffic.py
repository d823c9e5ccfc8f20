from prometheus_client.parser import text_string_to_metric_families

from shoestring.serve.backends.address import Address
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.pool import PoolBackend
from shoestring.serve.backends.upstream import Upstream
from shoestring.serve.traffic import Traffic
from shoestring.serve.watch import Course

CARD = ModelCard(id="m", max_model_len=99, created_s=0)


def values(text):
    """Every sample by its name and labels."""
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sorted(sample.labels.values())): sample.value for sample in samples}


def test_requests_are_counted_by_route_and_status():
    traffic = Traffic({})
    traffic.observe(
        Course(route="/a", status=200, begin_s=10.0, work_s=10.25, first_token_s=11.0, end_s=13.0)
    )
    traffic.observe(Course(route="/a", status=503, begin_s=10.0, end_s=10.5))
    found = values(traffic.text().decode())
    assert found["shoestring_requests_total", "/a", "200"] == 1
    assert found["shoestring_requests_total", "/a", "503"] == 1
    assert found["shoestring_request_seconds_sum", "/a"] == 3.5
    assert found["shoestring_queue_seconds_sum", "/a"] == 0.25
    assert found["shoestring_time_to_first_token_seconds_sum", "/a"] == 1.0
    assert found["shoestring_time_to_first_token_seconds_count", "/a"] == 1
    assert found["process_resident_memory_bytes",] > 0


def test_servers_are_shown_once_with_their_state():
    upstreams = [Upstream(Address(url=f"http://{name}/v1", key="secret-key"), {"m": CARD}) for name in "ab"]
    pools = {name: PoolBackend("m", upstreams) for name in ("m", "n")}
    upstreams[0].breaker.probe_ended(ok=False)
    upstreams[0].num_failures, upstreams[1].open_requests = 3, 2
    text = Traffic(pools).text().decode()
    found = values(text)
    assert (found["shoestring_upstream_up", "a"], found["shoestring_upstream_up", "b"]) == (0, 1)
    assert found["shoestring_upstream_failures_total", "a"] == 3
    assert found["shoestring_upstream_requests", "b"] == 2
    assert "secret-key" not in text


def test_the_service_counts_by_route_and_by_nothing_of_the_clients(client):
    canary = "canary-4711"
    body = {"model": "mini", "prompt": canary, "max_tokens": 2}
    for stream in (True, False):
        assert client.post("/v1/completions", json={**body, "stream": stream}).status_code == 200
    assert client.post("/v1/completions", json={**body, "model": canary}).status_code == 404
    assert client.get(f"/{canary}").status_code == 404
    text = client.get("/metrics").text
    found = values(text)
    assert found["shoestring_requests_total", "/v1/completions", "200"] == 2
    assert found["shoestring_requests_total", "/v1/completions", "404"] == 1
    assert found["shoestring_requests_total", "404", "other"] == 1
    assert found["shoestring_time_to_first_token_seconds_count", "/v1/completions"] == 2
    assert canary not in text
