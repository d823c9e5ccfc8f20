"""Requests, the check whether the engine can serve them, and the seeds derived for them."""

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from shoestring.errors import ConfigError
from shoestring.model.config import ModelConfig
from shoestring.outputs import CompletionOutput, FinishReason, Logprob, RequestMetrics, RequestOutput
from shoestring.sampling_params import (
    MAX_CHOICES,
    MAX_STOP_LENGTH,
    OutputKind,
    SamplingParams,
    StructuredOutputsParams,
)
from shoestring.tokenizer.bpe import Tokenizer

__all__ = [
    "MAX_CHOICES", "MAX_STOP_LENGTH", "CompletionOutput", "FinishReason", "Logprob", "OutputKind", "Request",
    "RequestMetrics", "RequestOutput", "SamplingParams", "StructuredOutputsParams", "bad_words",
    "check_request", "derived_seed",
]  # fmt: skip


def derived_seed(seed: int, key: str | int) -> int:
    """A request's own seed, from the seed of a run and what identifies the request in it: 56 bits of a hash.

    Completion i of n draws with this seed + i.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=7).digest(), "little")


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
    adapter: str = ""
    """The name in Engine.adapters of the model with the weights to use; empty is the engine's own."""
    prompt_experts: bool = False
    """Report the experts of the prompt's tokens, with its logprobs, if the model has experts."""
    arrival_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        object.__setattr__(self, "prompt_token_ids", tuple(self.prompt_token_ids))
        # Checked again, and a copy: its fields can be set.
        object.__setattr__(self, "sampling_params", self.sampling_params.clone())

    @property
    def prefix_salt(self) -> str:
        """The salt of its cached pages, whose entries depend on the adapter too."""
        return f"{len(self.adapter)}:{self.adapter}{self.cache_salt}"


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
    ids_by_name: dict[str, Iterable[int]] = {
        "the prompt": ids,
        "logit_bias": params.logit_bias or (),
        "allowed_token_ids": params.allowed_token_ids or (),
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
    if tokenizer is None and params.bad_words:
        raise ConfigError("bad_words need an engine with a tokenizer; use logit_bias")
    if tokenizer is None and spec is not None:
        raise ConfigError("structured_outputs need an engine with a tokenizer")
    room = max_model_len - len(ids)
    return len(ids) + min(room, params.max_tokens or room)


def bad_words(words: Iterable[str], tokenizer: Tokenizer | None) -> list[list[int]]:
    """The tokens of each word, at the beginning of a text and, where it differs in its first token, after a
    space."""
    rows: list[list[int]] = []
    for word in words:
        assert tokenizer is not None  # see check_request
        plain, spaced = tokenizer.encode_batch([word.lstrip(), " " + word.lstrip()], continues=True)
        rows.append(plain)
        if spaced[0] != plain[0] and len(spaced) == len(plain):
            rows.append(spaced)
    return rows
