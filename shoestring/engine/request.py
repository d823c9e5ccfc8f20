"""Requests, their check and their outputs, with vLLM's names: SamplingParams, Request, RequestOutput."""

import hashlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor

from shoestring.errors import ConfigError
from shoestring.model.config import ModelConfig
from shoestring.tokenizer.bpe import Tokenizer

FinishReason = Literal["stop", "length", "abort", "error"]
OutputKind = Literal["cumulative", "delta", "final_only"]

GREEDY_BELOW = 1e-5
"""A temperature below this means 0, as in vLLM: dividing by less would overflow float32."""
MAX_LOGPROBS = 20
MAX_CHOICES = 128
MAX_STOPS = 64
MAX_STOP_LENGTH = 1024


def derived_seed(seed: int, key: str | int) -> int:
    """A request's own seed, from the seed of a run and what identifies the request in it: 56 bits of a hash.

    Completion i of n draws with this seed + i.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=7).digest(), "little")


@dataclass(frozen=True, kw_only=True)
class StructuredOutputsParams:
    """The form of the text: exactly one of these, compiled by engine/constrain/grammars.py."""

    json: Mapping[str, Any] | str | None = None
    """A JSON schema."""
    json_object: bool = False
    """Any JSON object."""
    regex: str | None = None
    choice: tuple[str, ...] | None = None
    """One of these strings."""
    grammar: str | None = None
    """A Lark grammar."""
    tools: tuple[Mapping[str, Any], ...] | None = None
    """OpenAI-style definitions of the tools that may be called."""
    tool_choice: str = "auto"
    """auto, required, or the name of the tool that must be called; only with `tools`."""
    after_token_id: int | None = None
    """Text is free until this token: `</think>`, when the prompt ends inside the reply's thinking."""

    def __post_init__(self) -> None:
        for name in ("choice", "tools"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        names = ("json", "regex", "choice", "grammar", "tools")
        present = [name for name in names if getattr(self, name) is not None]
        present += ["json_object"] * self.json_object
        if len(present) != 1:
            raise ConfigError(
                f"structured_outputs takes exactly one of json, json_object, regex, choice, grammar, tools; "
                f"given: {', '.join(present) or 'none'}"
            )


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Sampling of one request, with vLLM's names, defaults and meanings.

    Raises ConfigError naming the field and its range. The order is: logit_bias, min_tokens and grammar;
    penalties; (temperature 0 ends here with the likeliest token); temperature; top_k; top_p; min_p.
    """

    n: int = 1
    """Independent completions of the prompt."""
    temperature: float = 1.0
    """0 takes the likeliest token, the lowest id among equals."""
    top_p: float = 1.0
    top_k: int = 0
    """Only the k likeliest tokens; 0 or -1 is all."""
    min_p: float = 0.0
    """Only tokens at least this likely relative to the likeliest."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and output; presence and frequency are over the output."""
    logit_bias: Mapping[int, float] | None = None
    seed: int | None = None
    """Completion k of n draws with seed + k; None takes a fresh seed."""
    max_tokens: int | None = 16
    """None is as many as the context holds."""
    min_tokens: int = 0
    stop: str | tuple[str, ...] = ()
    """One text, a list or tuple of texts, or None, as in vLLM."""
    stop_token_ids: tuple[int, ...] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    """Logprobs of each sampled token and of this many likeliest ones, from the unprocessed logits."""
    detokenize: bool = True
    skip_special_tokens: bool = True
    """Leave special tokens out of the text, all but the thinking tags."""
    structured_outputs: StructuredOutputsParams | None = None
    output_kind: OutputKind = "cumulative"
    """The content of each step's output: everything so far, only the new part, or nothing before the end."""

    def __post_init__(self) -> None:
        self._normalize()
        _int("n", self.n, 1, MAX_CHOICES)
        _number("temperature", self.temperature, 0.0, 100.0)
        _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0:
            raise ConfigError("top_p = 0 must be above 0 and at most 1")
        _int("top_k", self.top_k, -1, None)
        _number("min_p", self.min_p, 0.0, 1.0)
        _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        _number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        if self.seed is not None:
            _int("seed", self.seed, -(2**63), 2**63 - 1)
        if self.max_tokens is not None:
            _int("max_tokens", self.max_tokens, 1, None)
        _int("min_tokens", self.min_tokens, 0, self.max_tokens)
        if self.logprobs is not None:
            _int("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        self._check_stops()
        for token_id, bias in (self.logit_bias or {}).items():
            _int("logit_bias key", token_id, 0, None)
            _number(f"logit_bias[{token_id}]", bias, -100.0, 100.0)
        if self.output_kind not in ("cumulative", "delta", "final_only"):
            raise ConfigError(
                f"output_kind = {self.output_kind!r} is not one of cumulative, delta, final_only"
            )

    def _normalize(self) -> None:
        """Make lists tuples and copy the bias, so that nobody can change them later."""
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,) if self.stop else ())
        for name in ("stop", "stop_token_ids"):
            value = () if getattr(self, name) is None else getattr(self, name)
            if not isinstance(value, (list, tuple)):
                raise ConfigError(f"{name} = {value!r} is not a list")
            object.__setattr__(self, name, tuple(value))
        if self.logit_bias is not None:
            if not isinstance(self.logit_bias, Mapping):
                raise ConfigError(f"logit_bias = {self.logit_bias!r} is not a mapping from token id to bias")
            object.__setattr__(self, "logit_bias", dict(self.logit_bias))

    def _check_stops(self) -> None:
        if len(self.stop) > MAX_STOPS or len(self.stop_token_ids) > MAX_STOPS:
            raise ConfigError(f"stop and stop_token_ids take at most {MAX_STOPS} entries each")
        for text in self.stop:
            if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_LENGTH:
                raise ConfigError(f"each of stop must be text of 1 to {MAX_STOP_LENGTH} characters")
        for token_id in self.stop_token_ids:
            _int("stop_token_ids", token_id, 0, None)
        if self.stop and not self.detokenize:
            raise ConfigError("stop strings need detokenize = True; use stop_token_ids instead")

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def has_penalties(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)


def _int(name: str, value: object, low: int, high: int | None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} = {value!r} is not a whole number")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{name} = {value} must be {limits}")


def _number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{name} = {value!r} is not a number")
    if not (math.isfinite(value) and low <= value <= high):
        raise ConfigError(f"{name} = {value} must be from {low:g} to {high:g}")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One prompt with its sampling parameters."""

    request_id: str
    """Made by the engine's caller, never taken from a client: it is unique among unfinished requests."""
    prompt_token_ids: tuple[int, ...]
    sampling_params: SamplingParams = field(default_factory=SamplingParams)
    prompt: str | None = None
    """The prompt as text, if known; it is only returned with the outputs."""
    cache_salt: str = ""
    """Only prompts with the same salt share cached pages: one salt per tenant."""
    arrival_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", tuple(self.prompt_token_ids))


def check_request(
    request: Request, config: ModelConfig, max_model_len: int, tokenizer: Tokenizer | None
) -> int:
    """The length at which the request's completions end; ConfigError for a request that cannot be served."""
    params, ids = request.sampling_params, request.prompt_token_ids
    if not 0 < len(ids) < max_model_len:
        raise ConfigError(
            f"the prompt has {len(ids):,} tokens; this engine takes 1 to {max_model_len - 1:,}, shorten it"
        )
    spec = params.structured_outputs
    ids_by_name = {
        "the prompt": ids,
        "logit_bias": params.logit_bias or (),
        "stop_token_ids": params.stop_token_ids,
        "after_token_id": () if spec is None else (spec.after_token_id or 0,),
    }
    for name, token_ids in ids_by_name.items():
        wrong = [i for i in token_ids if not (type(i) is int and 0 <= i < config.vocab_size)]
        if wrong:
            raise ConfigError(
                f"{name} holds token id {wrong[0]!r}; the model has 0 to {config.vocab_size - 1}"
            )
    if tokenizer is None and params.stop:
        raise ConfigError("stop strings need an engine with a tokenizer; use stop_token_ids")
    if tokenizer is None and spec is not None:
        raise ConfigError("structured_outputs need an engine with a tokenizer")
    room = max_model_len - len(ids)
    return len(ids) + min(room, params.max_tokens or room)


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
    token_ids: tuple[int, ...]
    cumulative_logprob: float | None = None
    token_logprobs: tuple[float, ...] | None = None
    """One per token, if the request has logprobs."""
    logprobs: tuple[dict[int, Logprob], ...] | None = None
    """The sampled and the likeliest tokens at each position, if logprobs is above 0."""
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    """The stop string or stop token id; None for the end-of-sentence token. The message of an "error"."""
    routed_experts: Tensor | None = field(default=None, compare=False)
    """(T - 1, MoE layers, K) int16, of all T tokens of prompt and output but the last; with the last output,
    if enable_return_routed_experts is set."""

    @property
    def finished(self) -> bool:
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
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[CompletionOutput, ...]
    finished: bool
    num_cached_tokens: int = 0
    """Prompt tokens of the first completion that came from the prefix cache."""
    metrics: RequestMetrics | None = None
