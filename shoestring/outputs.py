"""Outputs of requests and of scores, with vLLM's names: RequestOutput, CompletionOutput, Logprob, metrics."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

FinishReason = Literal["stop", "length", "abort", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Logprob:
    """One token's log-probability under the unprocessed logits, and its rank (1 is the likeliest)."""

    logprob: float
    rank: int
    decoded_token: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionOutput:
    """One of a request's n completions; text, tokens and logprobs follow `output_kind`."""

    index: int
    text: str
    token_ids: list[int]
    cumulative_logprob: float | None = None
    token_logprobs: list[float] | None = None
    """One per token, if the request has logprobs."""
    logprobs: list[dict[int, Logprob]] | None = None
    """The sampled and the likeliest tokens at each position, if the request has logprobs."""
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    """The stop string or stop token id; None for the end-of-sentence token. The message of an "error"."""
    routed_experts: "Tensor | None" = field(default=None, compare=False)
    """(T - 1, MoE layers, K) int16, of all T tokens of prompt and output but the last; with the last output,
    if enable_return_routed_experts is set."""

    def finished(self) -> bool:
        """Return whether the completion has ended."""
        return self.finish_reason is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestMetrics:
    """Times of a request, by time.monotonic(), and its drafts."""

    arrival_s: float
    first_token_s: float | None = None
    last_token_s: float | None = None
    drafted_tokens: int = 0
    accepted_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOutput:
    """The state of a request after a step."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    finished: bool
    prompt_logprobs: list[dict[int, Logprob] | None] | None = None
    """Each prompt token and the likeliest in its place; None for the first, which nothing predicts."""
    prompt_experts: "Tensor | None" = field(default=None, compare=False)
    """(T, MoE layers, K) int16 of the T prompt tokens, once all are computed, if the request asks for it."""
    num_cached_tokens: int = 0
    """Prompt tokens of the first completion that came from the prefix cache."""
    metrics: RequestMetrics | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringOutput:
    """Log-probability of a continuation in nats, summed over its tokens."""

    score: float
    token_logprobs: list[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringRequestOutput:
    """The score of one pair of texts: `outputs.score`."""

    request_id: str
    outputs: ScoringOutput
    prompt_token_ids: list[int]
    """The first text and its continuation."""
    finished: bool = True


@dataclass(slots=True, kw_only=True)
class BeamSearchSequence:
    """One of the likeliest continuations; its tokens begin with those of the prompt, and so does its text."""

    tokens: list[int]
    logprobs: list[dict[int, Logprob]]
    cum_logprob: float = 0.0
    text: str | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True, kw_only=True)
class BeamSearchOutput:
    """The best sequences for one prompt, the best one first."""

    sequences: list[BeamSearchSequence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A figure of the engine under the name that vLLM gives it."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counter(Metric):
    """A total since the engine was made."""

    value: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauge(Metric):
    """A current value."""

    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Vector(Metric):
    """A total for each of several places."""

    values: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram(Metric):
    """The number and sum of values, and how many are at most as large as each bucket's name."""

    count: int
    sum: float
    buckets: dict[str, int]
