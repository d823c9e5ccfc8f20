"""The engine's counters as vLLM's metrics, for LLM.get_metrics."""

from shoestring.engine.settings import EngineCounters
from shoestring.outputs import Counter, Gauge, Metric

COUNTERS = {
    "vllm:prompt_tokens": "prompt_tokens",
    "vllm:generation_tokens": "generated_tokens",
    "vllm:prefix_cache_queries": "prompt_tokens",
    "vllm:prefix_cache_hits": "cached_tokens",
    "vllm:num_preemptions": "preemptions",
    "vllm:request_success": "finished",
    "vllm:spec_decode_num_draft_tokens": "drafted_tokens",
    "vllm:spec_decode_num_accepted_tokens": "accepted_tokens",
}
"""Fields of EngineCounters by vLLM's names of the same figures."""


def metrics(counters: EngineCounters, model_name: str) -> list[Metric]:
    """Current values, then totals; each is labeled with the model's name."""
    labels = {"model_name": model_name}
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
    return [*gauges, *totals]
