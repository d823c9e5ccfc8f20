"""One answer as the model sees it: its exact tokens, how likely each was, and the experts that it went to.

The prompt and the answer pass through the model once, all tokens given: what it would have said instead shows
at each place.
"""

from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from shoestring.engine.engine import Engine
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.backend import Backend
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import LazyBackend
from shoestring.serve.backends.local import LocalBackend
from shoestring.serve.backends.reply import Delta, TokenLogprob, Usage
from shoestring.serve.backends.request import ChatRequest, TextRequest
from shoestring.tokenizer.bpe import Tokenizer

MAX_PROMPT = 4096
"""Most tokens before the answer."""
MAX_ANSWER = 1024
"""Tokens of an answer that are shown, its first ones."""
NUM_ALTERNATIVES = 5


@dataclass(frozen=True, kw_only=True)
class AnswerTokens:
    """The tokens of a conversation: what stands before the answer, and the answer."""

    prompt_ids: tuple[int, ...]
    answer_ids: tuple[int, ...]
    is_cut: bool
    """The answer has more tokens than these."""

    def request(self, cache_salt: str) -> TextRequest:
        """The pass through the model."""
        return TextRequest(
            prompt=self.prompt_ids + self.answer_ids,
            sampling=SamplingParams(max_tokens=1, temperature=0.0, logprobs=NUM_ALTERNATIVES),
            echo=True,
            experts=True,
            cache_salt=cache_salt,
        )


async def answer_tokens(backend: Backend, chat: ChatRequest) -> AnswerTokens:
    """The tokens of a conversation that ends in an answer. Raises RequestError."""
    if not isinstance(backend, LocalBackend | LazyBackend):
        sentence = f"{backend.card.id} runs on another server: only models of this process can be looked into"
        raise RequestError("invalid", sentence, field="model")
    *before, last = chat.messages
    if last["role"] != "assistant" or not before:
        sentence = "the last message must be the assistant's answer, after others"
        raise RequestError("invalid", sentence, field="messages")
    prompt = await backend.tokenize(replace(chat, messages=tuple(before), continue_final_message=False))
    whole = await backend.tokenize(replace(chat, continue_final_message=True))
    begin = _num_common(prompt, whole)
    if begin > MAX_PROMPT:
        sentence = f"the conversation has {begin} tokens before the answer; at most {MAX_PROMPT} can be shown"
        raise RequestError("context_length", sentence, field="messages")
    most = min(MAX_ANSWER, backend.card.max_model_len - 1 - begin)
    answer = whole[begin : begin + most]
    is_cut = len(answer) < len(whole) - begin
    return AnswerTokens(prompt_ids=whole[:begin], answer_ids=answer, is_cut=is_cut)


async def inspection(backend: Backend, tokens: AnswerTokens, deltas: AsyncIterable[Delta]) -> dict[str, Any]:
    """The answer as the page shows it, from the deltas of the pass."""
    entries: list[TokenLogprob] = []
    experts: list[list[list[int]]] | None = None
    usage = Usage()
    async for delta in deltas:
        if not entries:  # the echo comes first; then there is one token more, which nobody needs
            entries, experts = list(delta.logprobs), delta.prompt_experts
        usage = delta.usage
    engine = _engine(backend)
    assert engine.tokenizer is not None
    begin = len(tokens.prompt_ids)
    return {
        "object": "inspection",
        "model": backend.card.id,
        "prompt": [_token(token_id, engine.tokenizer) for token_id in tokens.prompt_ids],
        "answer": [_answer_token(entry, engine.tokenizer) for entry in entries[begin:]],
        "is_cut": tokens.is_cut,
        "experts": None if experts is None else experts[begin:],
        "shape": _shape(engine),
        "engine": _figures(engine),
        "prompt_tokens": usage.prompt_tokens,
    }


def _engine(backend: Backend) -> Engine:
    local = backend.local if isinstance(backend, LazyBackend) else backend
    if not isinstance(local, LocalBackend):
        raise RequestError("overloaded", "the model was unloaded meanwhile; try again", retry_after_s=1)
    return local.engine


def _num_common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the beginning that two sequences share."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _token(token_id: int, tokenizer: Tokenizer) -> dict[str, Any]:
    text = tokenizer.token_bytes(token_id).decode(errors="replace")
    return {"id": token_id, "text": text, "is_special": token_id in tokenizer.specials.values()}


def _answer_token(entry: TokenLogprob, tokenizer: Tokenizer) -> dict[str, Any]:
    assert entry.token_id is not None
    others = [
        {"id": other.token_id, "text": other.token, "logprob": _rounded(other.logprob)} for other in entry.top
    ]
    return {**_token(entry.token_id, tokenizer), "logprob": _rounded(entry.logprob), "alternatives": others}


def _rounded(logprob: float | None) -> float:
    return round(max(logprob or 0.0, -9999.0), 4)


def _shape(engine: Engine) -> dict[str, Any]:
    """The numbers that say what the model is."""
    config = engine.model.config
    moe = config.moe
    return {
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "vocab_size": config.vocab_size,
        "moe_layers": list(config.moe_layers),
        "experts": moe.n_routed_experts if moe else 0,
        "active_experts": moe.num_experts_per_tok if moe else 0,
        "shared_experts": moe.n_shared_experts if moe else 0,
    }


def _figures(engine: Engine) -> dict[str, Any]:
    """Totals of the engine since it was loaded: the prefix cache, and speculation."""
    counters = engine.counters
    names = ("prompt_tokens", "cached_tokens", "generated_tokens", "drafted_tokens", "accepted_tokens")
    return {name: getattr(counters, name) for name in names}
