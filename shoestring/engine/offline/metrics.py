"""The engine's counters and latencies as vLLM's metrics, for LLM.get_metrics."""

from itertools import accumulate

from shoestring.engine.engine import Engine
from shoestring.engine.settings import Distribution
from shoestring.outputs import Counter, Gauge, Histogram, Metric, Vector

COUNTERS = {
    "vllm:prompt_tokens": "prompt_tokens",
    "vllm:generation_tokens": "generated_tokens",
    "vllm:prefix_cache_queries": "prompt_tokens",
    "vllm:prefix_cache_hits": "cached_tokens",
    "vllm:num_preemptions": "preemptions",
    "vllm:request_success": "finished",
    "vllm:spec_decode_num_drafts": "drafts",
    "vllm:spec_decode_num_draft_tokens": "drafted_tokens",
    "vllm:spec_decode_num_accepted_tokens": "accepted_tokens",
}
"""Fields of EngineCounters by vLLM's names of the same figures."""
HISTOGRAMS = {
    "vllm:time_to_first_token_seconds": "first_token_s",
    "vllm:inter_token_latency_seconds": "between_tokens_s",
    "vllm:request_decode_time_seconds": "decode_s",
    "vllm:e2e_request_latency_seconds": "request_s",
    "vllm:request_prompt_tokens": "prompt_tokens",
    "vllm:request_generation_tokens": "generated_tokens",
}
"""Distributions of Latencies by vLLM's names of the same figures."""


def metrics(engine: Engine, model_name: str) -> list[Metric]:
    """Current values, totals and distributions; each is labeled with the model's name."""
    counters, latencies, labels = engine.counters, engine.latencies, {"model_name": model_name}
    current = {
        "vllm:num_requests_running": counters.running,
        "vllm:num_requests_waiting": counters.waiting,
        "vllm:kv_cache_usage_perc": counters.pages_used / max(counters.pages_total, 1),
    }
    gauges = [Gauge(name=name, labels=dict(labels), value=float(value)) for name, value in current.items()]
    totals = [
        Counter(name=name, labels=dict(labels), value=getattr(counters, field))
        for name, field in COUNTERS.items()
    ]
    by_place = Vector(
        name="vllm:spec_decode_num_accepted_tokens_per_pos",
        labels=dict(labels),
        values=list(latencies.accepted_at),
    )
    histograms = [_histogram(name, labels, getattr(latencies, field)) for name, field in HISTOGRAMS.items()]
    return [*gauges, *totals, by_place, *histograms]


def _histogram(name: str, labels: dict[str, str], values: Distribution) -> Histogram:
    """The distribution with each bucket counting those below it too, as Prometheus does."""
    bounds = [*map(str, values.bounds), "+Inf"]
    counts = list(accumulate(values.counts))
    return Histogram(
        name=name,
        labels=dict(labels),
        count=counts[-1],
        sum=values.total,
        buckets=dict(zip(bounds, counts, strict=True)),
    )
