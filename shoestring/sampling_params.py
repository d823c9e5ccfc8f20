"""Sampling parameters with vLLM's names and meanings, the form of a text, and settings of beam search."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from enum import StrEnum
from numbers import Integral, Real
from typing import Any, Literal, Self

from shoestring.errors import ConfigError

OutputKind = Literal["cumulative", "delta", "final_only"]

GREEDY_BELOW = 1e-5
"""A temperature below this means 0, as in vLLM: dividing by less would overflow float32."""
MAX_CHOICES = 128
MAX_STOPS = 64
MAX_STOP_LENGTH = 1024


_SWITCHES = (
    "include_stop_str_in_output",
    "ignore_eos",
    "token_logprobs",
    "detokenize",
    "skip_special_tokens",
)


class RequestOutputKind(StrEnum):
    """The values of `output_kind` as vLLM spells them."""

    CUMULATIVE = "cumulative"
    DELTA = "delta"
    FINAL_ONLY = "final_only"


@dataclass(frozen=True, kw_only=True)
class StructuredOutputsParams:
    """The form of the text: one of these, compiled by engine/constrain/grammars.py; `tools` go with json or
    json_object too, which is then the form of an answer without calls."""

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
    parallel_tool_calls: bool = True
    """Allow several calls in one reply."""
    tool_format: str = "deepseek_v3"
    """The model's way of writing calls: a name in TOOL_FORMATS of tokenizer/chat/tool_format.py."""
    after_token_id: int | None = None
    """Text is free until this token: `</think>`, when the prompt ends inside the reply's thinking."""

    def __post_init__(self) -> None:
        for name in ("choice", "tools"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_types()
        names = ("json", "regex", "choice", "grammar", "tools")
        present = [name for name in names if getattr(self, name) is not None]
        present += ["json_object"] * bool(self.json_object)
        if len(present) != 1 and sorted(present) not in (["json", "tools"], ["json_object", "tools"]):
            raise ConfigError(
                f"structured_outputs takes exactly one of json, json_object, regex, choice, grammar, tools "
                f"(tools may have json or json_object beside them); given: {', '.join(present) or 'none'}"
            )

    def _check_types(self) -> None:
        kinds: dict[str, tuple[type | tuple[type, ...], str]] = {
            "json": ((Mapping, str), "a JSON schema: a dictionary or its text"),
            "json_object": (bool, "True or False"),
            "regex": (str, "text"),
            "choice": (tuple, "a list of texts"),
            "grammar": (str, "text"),
            "tools": (tuple, "a list of tools' definitions"),
        }
        for name, (kind, words) in kinds.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ConfigError(f"structured_outputs.{name} must be {words}, not a {type(value).__name__}")


@dataclass(frozen=True, kw_only=True)
class GuidedDecodingParams(StructuredOutputsParams):
    """StructuredOutputsParams under their older name; the arguments here have no effect."""

    backend: str | None = None
    disable_fallback: bool = False


@dataclass(kw_only=True, slots=True)
class SamplingParams:
    """Sampling of one request, with vLLM's names, defaults and meanings; None in a field is its default.

    Raises ConfigError naming the field and its range; the engine checks again what was set later. The order
    is: allowed_token_ids, bad_words, logit_bias, min_tokens and grammar; penalties; (temperature 0 ends here
    with the likeliest token); temperature; min_p; top_k; top_p.
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
    allowed_token_ids: Sequence[int] | None = None
    """The only tokens that may be sampled."""
    bad_words: Sequence[str] | None = None
    """Texts that the output must not contain, at the beginning of a word or inside it."""
    seed: int | None = None
    """Completion k of n draws with seed + k; None or -1 takes a fresh seed."""
    max_tokens: int | None = 16
    """None is as many as the context holds."""
    min_tokens: int = 0
    stop: str | Sequence[str] = ()
    """One text, a list of texts, or None; afterwards a list."""
    stop_token_ids: Sequence[int] = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    logprobs: int | None = None
    """Logprobs of each sampled token and of this many likeliest, by the unprocessed logits; -1 is all."""
    prompt_logprobs: int | None = None
    """Likewise for the tokens of the prompt; its beginning is then not taken from the prefix cache."""
    token_logprobs: bool = False
    """Logprobs of sampled tokens as plain numbers only, in CompletionOutput.token_logprobs."""
    detokenize: bool = True
    skip_special_tokens: bool = True
    """Leave special tokens out of the text, all but the thinking tags."""
    structured_outputs: StructuredOutputsParams | None = None
    guided_decoding: StructuredOutputsParams | None = None
    """The older name of structured_outputs, where it is moved."""
    output_kind: OutputKind = "cumulative"
    """The content of each step's output: everything so far, only the new part, or nothing before the end."""

    def __post_init__(self) -> None:
        _replace_none(self)
        self._copy_lists()
        self._check_numbers()
        self._check_stops()
        self._check_tokens()
        for name in _SWITCHES:
            _check_bool(name, getattr(self, name))
        self._check_structure()
        if self.output_kind not in ("cumulative", "delta", "final_only"):
            raise ConfigError(
                f"output_kind = {self.output_kind!r} is not one of cumulative, delta, final_only"
            )

    @classmethod
    def from_optional(cls, **values: Any) -> Self:
        """The same as the constructor, which takes None for a default as well."""
        return cls(**values)

    def clone(self) -> Self:
        """An independent copy; raises ConfigError for a value that was set and is wrong."""
        return replace(self)

    @property
    def is_greedy(self) -> bool:
        return self.temperature < GREEDY_BELOW

    @property
    def has_logprobs(self) -> bool:
        return self.token_logprobs or self.logprobs is not None

    @property
    def is_plain(self) -> bool:
        """Return whether tokens are drawn by logits and temperature alone, without a list of likeliest ones.

        A grammar does not count here.
        """
        changes = (self.allowed_token_ids, self.bad_words, self.logit_bias, self.logprobs)
        filters = self.top_k > 0 or self.top_p < 1 or self.min_p > 0
        has_changes = any(change is not None for change in changes) or bool(self.min_tokens)
        return not (filters or has_changes or self.has_penalties)

    @property
    def is_read_at_end(self) -> bool:
        """Return whether nobody, not even a stop string, looks at the text before its end."""
        return self.output_kind == "final_only" and not self.stop

    @property
    def has_penalties(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty or self.repetition_penalty != 1.0)

    def _copy_lists(self) -> None:
        """Copy what is mutable, so that nobody else can change it later."""
        if isinstance(self.stop, str):
            self.stop = [self.stop] if self.stop else []
        for name in ("stop", "stop_token_ids", "allowed_token_ids", "bad_words"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, (list, tuple)):
                    raise ConfigError(f"{name} = {value!r} is not a list")
                setattr(self, name, list(value))
        if self.logit_bias is not None:
            if not isinstance(self.logit_bias, Mapping):
                raise ConfigError(f"logit_bias = {self.logit_bias!r} is not a mapping from token id to bias")
            self.logit_bias = {_key(token_id): bias for token_id, bias in self.logit_bias.items()}

    def _check_structure(self) -> None:
        for name in ("structured_outputs", "guided_decoding"):
            spec: object = getattr(self, name)
            if spec is not None and not isinstance(spec, StructuredOutputsParams):
                raise ConfigError(f"{name} is a {type(spec).__name__}, not StructuredOutputsParams")
        if self.guided_decoding is not None:
            if self.structured_outputs is not None:
                raise ConfigError(
                    "guided_decoding and structured_outputs are two names of one thing; give one"
                )
            self.structured_outputs, self.guided_decoding = self.guided_decoding, None

    def _check_numbers(self) -> None:
        self.n = _int("n", self.n, 1, MAX_CHOICES)
        self.temperature = _number("temperature", self.temperature, 0.0, 100.0)
        self.top_p = _number("top_p", self.top_p, 0.0, 1.0)
        if self.top_p == 0:
            raise ConfigError("top_p = 0 must be above 0 and at most 1")
        self.top_k = _int("top_k", self.top_k, -1, None)
        self.min_p = _number("min_p", self.min_p, 0.0, 1.0)
        self.presence_penalty = _number("presence_penalty", self.presence_penalty, -2.0, 2.0)
        self.frequency_penalty = _number("frequency_penalty", self.frequency_penalty, -2.0, 2.0)
        self.repetition_penalty = _number("repetition_penalty", self.repetition_penalty, 0.01, 100.0)
        if self.seed is not None:
            self.seed = _int("seed", self.seed, -(2**63), 2**63 - 1)
            self.seed = None if self.seed == -1 else self.seed
        if self.max_tokens is not None:
            self.max_tokens = _int("max_tokens", self.max_tokens, 1, None)
        self.min_tokens = _int("min_tokens", self.min_tokens, 0, self.max_tokens)
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                setattr(self, name, _int(name, getattr(self, name), -1, None))

    def _check_stops(self) -> None:
        if len(self.stop) > MAX_STOPS or len(self.stop_token_ids) > MAX_STOPS:
            raise ConfigError(f"stop and stop_token_ids take at most {MAX_STOPS} entries each")
        for text in self.stop:
            if not isinstance(text, str) or not 0 < len(text) <= MAX_STOP_LENGTH:
                raise ConfigError(f"each of stop must be text of 1 to {MAX_STOP_LENGTH} characters")
        if self.stop and not self.detokenize:
            raise ConfigError("stop strings need detokenize = True; use stop_token_ids instead")

    def _check_tokens(self) -> None:
        self.stop_token_ids = [_int("stop_token_ids", i, 0, None) for i in self.stop_token_ids]
        if self.allowed_token_ids is not None:
            self.allowed_token_ids = [_int("allowed_token_ids", i, 0, None) for i in self.allowed_token_ids]
            if not self.allowed_token_ids:
                raise ConfigError("allowed_token_ids is empty, so no token could be sampled; leave it out")
        for text in self.bad_words or ():
            if not isinstance(text, str) or not text.strip():
                raise ConfigError(f"bad_words holds {text!r}; each must be text that is not blank")
        if self.logit_bias:
            self.logit_bias = {
                _int("logit_bias key", token_id, 0, None): _number(
                    f"logit_bias[{token_id}]", bias, -100.0, 100.0
                )
                for token_id, bias in self.logit_bias.items()
            }


@dataclass(kw_only=True, slots=True)
class BeamSearchParams:
    """Settings of LLM.beam_search, with vLLM's names."""

    beam_width: int
    max_tokens: int
    ignore_eos: bool = False
    temperature: float = 0.0
    """Only 0: a beam is extended by its likeliest tokens."""
    length_penalty: float = 1.0
    """A sequence's score is its log-probability over its length (with the prompt) to this power."""
    include_stop_str_in_output: bool = False
    """Keep the end token at the end of a sequence."""

    def __post_init__(self) -> None:
        _replace_none(self)
        self.beam_width = _int("beam_width", self.beam_width, 1, MAX_CHOICES)
        self.max_tokens = _int("max_tokens", self.max_tokens, 1, None)
        self.temperature = _number("temperature", self.temperature, 0.0, 0.0)
        self.length_penalty = _number("length_penalty", self.length_penalty, -100.0, 100.0)
        _check_bool("ignore_eos", self.ignore_eos)
        _check_bool("include_stop_str_in_output", self.include_stop_str_in_output)


def _replace_none(params: Any) -> None:
    """Set fields that are None to their defaults; only `max_tokens` has a meaning for None."""
    for field in fields(params):
        has_default = field.default is not MISSING and field.name != "max_tokens"
        if has_default and getattr(params, field.name) is None:
            setattr(params, field.name, field.default)


def _key(token_id: Any) -> Any:
    """A token id, also from JSON, whose keys are text."""
    return (
        int(token_id) if isinstance(token_id, str) and token_id.isascii() and token_id.isdigit() else token_id
    )


def _check_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} = {value!r} is neither True nor False")


def _int(name: str, value: object, low: int, high: int | None) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ConfigError(f"{name} = {value!r} is not a whole number")
    number = int(value)
    if number < low or (high is not None and number > high):
        limits = f"at least {low}" if high is None else f"from {low} to {high}"
        raise ConfigError(f"{name} = {number} must be {limits}")
    return number


def _number(name: str, value: object, low: float, high: float) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ConfigError(f"{name} = {value!r} is not a number")
    number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        raise ConfigError(f"{name} = {value} must be from {low:g} to {high:g}")
    return number
