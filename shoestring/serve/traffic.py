"""Figures of the service's requests, its servers and its process for Prometheus."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from shoestring.serve.backends.backend import Backend
from shoestring.serve.backends.lazy import LazyBackend
from shoestring.serve.backends.pool import PoolBackend
from shoestring.serve.watch import Course

TIMES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Traffic:
    """Totals since the start, by route and status: nothing that a client wrote is a label."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "shoestring_requests", "Requests that ended", ("route", "status"), registry=self._registry
        )
        self._queue = self._times("queue", "Seconds until a model got the request")
        self._first = self._times("time_to_first_token", "Seconds from a request to its first token")
        self._duration = self._times("request", "Seconds from a request to its end")
        self._registry.register(BackendCollector(backends))
        ProcessCollector(registry=self._registry)

    def observe(self, course: Course) -> None:
        """Count a request that has ended."""
        self._requests.labels(course.route, str(course.status)).inc()
        self._duration.labels(course.route).observe(course.end_s - course.begin_s)
        if course.work_s is not None:
            self._queue.labels(course.route).observe(course.work_s - course.begin_s)
        if course.first_token_s is not None:
            self._first.labels(course.route).observe(course.first_token_s - course.begin_s)

    def _times(self, name: str, text: str) -> Histogram:
        full_name = f"shoestring_{name}_seconds"
        return Histogram(full_name, text, ("route",), buckets=TIMES_S, registry=self._registry)

    def text(self) -> bytes:
        """The figures as Prometheus reads them."""
        return generate_latest(self._registry)


class BackendCollector(Collector):
    """Models in memory, and the state of the others' servers."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = backends

    def collect(self) -> Iterable[Family]:
        in_memory = GaugeMetricFamily(
            "shoestring_model_loaded", "1 for a model in memory", labels=["model_name"]
        )
        up = GaugeMetricFamily(
            "shoestring_upstream_up", "1 for a server that gets requests", labels=["upstream"]
        )
        requests = GaugeMetricFamily(
            "shoestring_upstream_requests", "Requests open at a server", labels=["upstream"]
        )
        failures = CounterMetricFamily(
            "shoestring_upstream_failures", "Requests and probes that a server failed", labels=["upstream"]
        )
        pools = [backend for backend in self._backends.values() if isinstance(backend, PoolBackend)]
        for upstream in {upstream.name: upstream for pool in pools for upstream in pool.upstreams}.values():
            up.add_metric([upstream.name], float(upstream.breaker.lets_requests))
            requests.add_metric([upstream.name], upstream.open_requests)
            failures.add_metric([upstream.name], upstream.num_failures)
        for name, backend in self._backends.items():
            if isinstance(backend, LazyBackend):
                in_memory.add_metric([name], float(backend.local is not None))
        return in_memory, up, requests, failures
