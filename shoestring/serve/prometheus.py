"""Figures of the engines in this process for Prometheus, under vLLM's names."""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from shoestring.engine.engine import Engine
from shoestring.engine.offline.metrics import metrics
from shoestring.outputs import Counter, Gauge, Histogram, Metric, Vector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class EngineCollector(Collector):
    """The metrics of engines by the names of their models, read when they are asked for."""

    def __init__(self, engines: Mapping[str, Engine]) -> None:
        self._engines = engines

    def collect(self) -> Iterable[Family]:
        families: dict[str, Family] = {}
        for model, engine in self._engines.items():
            for metric in metrics(engine, model):
                family = families.setdefault(metric.name, _family(metric))
                _add(family, metric, model)
        return families.values()


def metrics_text(engines: Mapping[str, Engine]) -> bytes:
    """The page that Prometheus reads."""
    registry = CollectorRegistry()
    registry.register(EngineCollector(engines))
    return generate_latest(registry)


def _family(metric: Metric) -> Family:
    """An empty family of a metric's kind."""
    text = metric.name.removeprefix("vllm:").replace("_", " ")
    if isinstance(metric, Gauge):
        return GaugeMetricFamily(metric.name, text, labels=["model_name"])
    if isinstance(metric, Histogram):
        return HistogramMetricFamily(metric.name, text, labels=["model_name"])
    labels = ["model_name", "position"] if isinstance(metric, Vector) else ["model_name"]
    return CounterMetricFamily(metric.name, text, labels=labels)


def _add(family: Family, metric: Metric, model: str) -> None:
    if isinstance(family, GaugeMetricFamily) and isinstance(metric, Gauge):
        family.add_metric([model], metric.value)
    elif isinstance(family, HistogramMetricFamily) and isinstance(metric, Histogram):
        family.add_metric([model], list(metric.buckets.items()), metric.sum)
    elif isinstance(family, CounterMetricFamily) and isinstance(metric, Vector):
        for position, value in enumerate(metric.values):
            family.add_metric([model, str(position)], value)
    elif isinstance(family, CounterMetricFamily) and isinstance(metric, Counter):
        family.add_metric([model], metric.value)
