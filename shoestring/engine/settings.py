"""The engine's settings, with their check, and its counters and latencies."""

from bisect import bisect_left
from dataclasses import dataclass, field, replace
from typing import Literal

from shoestring.engine.output import CompletionState, RequestState
from shoestring.engine.scheduler import Scheduler
from shoestring.errors import ConfigError
from shoestring.model.config import ModelConfig
from shoestring.tokenizer.bpe import Tokenizer

SpeculationMethod = Literal["auto", "mtp", "prompt_lookup", "off"]
DEFAULT_TOKENS = 1024
"""Tokens that the cache holds for each sequence unless `kv_cache_memory_bytes` says otherwise."""


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """Limits of one engine's batches and memory, with vLLM's names. None of them changes a token."""

    max_num_seqs: int = 64
    """Sequences that run at the same time; others wait."""
    max_num_batched_tokens: int = 512
    """Tokens of one step: of decoding sequences first, then pieces of prompts."""
    prompt_share: float = 1.0
    """Share of a step's time that pieces of prompts may take beside running streams, as measured: at 0.5 a
    long prompt makes their steps twice as long. 1 sets no limit but max_num_batched_tokens."""
    kv_cache_memory_bytes: int | None = None
    """Memory of the paged cache; None is a thousand tokens per sequence, at most half of the free memory."""
    max_model_len: int | None = None
    """Longest prompt with its output; None is the model's context, as far as the cache holds it."""
    enable_prefix_caching: bool = True
    speculation: SpeculationMethod = "auto"
    """auto is mtp for a model with MTP modules, prompt_lookup for others."""
    num_speculative_tokens: int = 1
    """Tokens drafted ahead for each sequence and step."""
    adaptive_speculation: bool = True
    """Measure whether drafts make decoding faster, and pause them while they do not."""
    stream_interval_s: float = 0.0
    """Seconds over which the tokens of a streamed request are collected into one output, its first ones
    apart; 0 gives an output after each step."""
    enable_return_routed_experts: bool = False
    """Report the experts of each token with a request's last output, if the model has experts."""


@dataclass(kw_only=True)
class EngineCounters:
    """Totals since the engine was made; `running`, `waiting` and `pages_used` are current."""

    steps: int = 0
    busy_s: float = 0.0
    """Seconds inside step()."""
    prompt_tokens: int = 0
    """Prompt tokens of sequences that started; cached_tokens of them came from the prefix cache."""
    cached_tokens: int = 0
    computed_tokens: int = 0
    """Tokens run through the model: prompts, generated ones, drafts, and repetitions after preemption."""
    generated_tokens: int = 0
    drafts: int = 0
    """Steps of a sequence with drafts; drafted_tokens were in them."""
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    preemptions: int = 0
    requests: int = 0
    finished: int = 0
    aborted: int = 0
    failed: int = 0
    running: int = 0
    waiting: int = 0
    pages_used: int = 0
    pages_total: int = 0

    @property
    def acceptance(self) -> float:
        """Share of drafted tokens that were accepted."""
        return self.accepted_tokens / max(self.drafted_tokens, 1)


TIMES_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0),
    *(40.0, 80.0, 160.0, 640.0, 2560.0),
)
LENGTHS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


@dataclass(slots=True)
class Distribution:
    """Numbers seen so far: their sum, and how many of them lie between two bounds."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets, themselves included; one more bucket has none."""
    total: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float, count: int = 1) -> None:
        self.total += value * count
        self.counts[bisect_left(self.bounds, value)] += count


class Latencies:
    """An engine's distributions, and the number of drafts accepted at each place behind a token."""

    def __init__(self, num_speculative_tokens: int) -> None:
        self.first_token_s, self.between_tokens_s = Distribution(TIMES_S), Distribution(TIMES_S)
        self.decode_s, self.request_s = Distribution(TIMES_S), Distribution(TIMES_S)
        self.prompt_tokens, self.generated_tokens = Distribution(LENGTHS), Distribution(LENGTHS)
        self.accepted_at = [0] * num_speculative_tokens

    def add_tokens(self, state: RequestState, completion: CompletionState, count: int, now: float) -> None:
        """Count a completion's new tokens, all but one of them drafts, before their time is recorded."""
        if count > 1:
            self.accepted_at += [0] * (count - 1 - len(self.accepted_at))
            for place in range(count - 1):
                self.accepted_at[place] += 1
        if state.first_token_s is None:
            self.first_token_s.add(now - state.request.arrival_s)
        if completion.last_token_s is not None:
            self.between_tokens_s.add(now - completion.last_token_s)
        completion.last_token_s = now

    def add_request(self, state: RequestState) -> None:
        """Count a request that finished as it should."""
        self.prompt_tokens.add(len(state.request.prompt_token_ids))
        for completion in state.completions:
            self.generated_tokens.add(len(completion.token_ids))
        if state.first_token_s is not None and state.last_token_s is not None:
            self.decode_s.add(state.last_token_s - state.first_token_s)
            self.request_s.add(state.last_token_s - state.request.arrival_s)


def with_current(counters: EngineCounters, scheduler: Scheduler) -> EngineCounters:
    """A copy of the counters with those of the scheduler."""
    return replace(
        counters,
        prompt_tokens=scheduler.counters.prompt_tokens,
        cached_tokens=scheduler.counters.cached_tokens,
        computed_tokens=scheduler.counters.computed_tokens,
        preemptions=scheduler.counters.preemptions,
        running=len(scheduler.running),
        waiting=len(scheduler.waiting),
        pages_used=scheduler.pool.num_used,
    )


def count_drafts(counters: EngineCounters, state: RequestState, num_drafts: int, num_new: int) -> None:
    """Count a step of a sequence with drafts, from which it got so many new tokens."""
    num_accepted = max(num_new - 1, 0)
    counters.drafts += 1
    counters.drafted_tokens += num_drafts
    counters.accepted_tokens += num_accepted
    state.num_drafted += num_drafts
    state.num_accepted += num_accepted


def count_end(counters: EngineCounters, latencies: Latencies, state: RequestState) -> None:
    """Count a request that has finished."""
    reasons = {completion.finish_reason for completion in state.completions}
    counters.failed += "error" in reasons
    if not reasons & {"error", "abort"}:
        counters.finished += 1
        latencies.add_request(state)


def check_settings(settings: EngineSettings, config: ModelConfig) -> None:
    """Raise ConfigError naming a setting that is out of range or does not fit the model."""
    for name in ("max_num_seqs", "max_num_batched_tokens", "num_speculative_tokens"):
        if getattr(settings, name) < 1:
            raise ConfigError(f"{name} = {getattr(settings, name)} must be at least 1")
    if not 0.0 < settings.prompt_share <= 1.0:
        raise ConfigError(f"prompt_share = {settings.prompt_share} must be above 0 and at most 1")
    if not 0.0 <= settings.stream_interval_s <= 60.0:
        raise ConfigError(f"stream_interval_s = {settings.stream_interval_s} must be from 0 to 60")
    if settings.max_num_batched_tokens < settings.max_num_seqs:
        raise ConfigError(
            f"max_num_batched_tokens = {settings.max_num_batched_tokens} must be at least max_num_seqs = "
            f"{settings.max_num_seqs}, so that every running sequence gets a row"
        )
    if settings.speculation not in ("auto", "mtp", "prompt_lookup", "off"):
        raise ConfigError(
            f"speculation = {settings.speculation!r} is not one of auto, mtp, prompt_lookup, off"
        )
    if settings.speculation == "mtp" and not config.num_nextn_predict_layers:
        raise ConfigError("speculation = 'mtp' needs a model with MTP modules; take prompt_lookup or off")
    longest = config.max_position_embeddings
    if settings.max_model_len is not None and not 2 <= settings.max_model_len <= longest:
        raise ConfigError(
            f"max_model_len = {settings.max_model_len} must be from 2 to the model's {longest:,}"
        )


def eos_ids(config: ModelConfig, tokenizer: Tokenizer | None) -> frozenset[int]:
    """The ids that end a completion: those of the checkpoint's config, and the tokenizer's end token."""
    ids = set(config.eos_token_ids)
    if tokenizer is not None and "eos_token" in tokenizer.roles:
        ids.add(tokenizer.eos_id)
    return frozenset(token_id for token_id in ids if token_id < config.vocab_size)
