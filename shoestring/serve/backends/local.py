"""The backend of a model in this process: its chat template, and its engine on a thread of its own."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from itertools import groupby
from typing import Any

from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, check_request
from shoestring.errors import ConfigError, TokenizerError
from shoestring.outputs import CompletionOutput, Logprob, RequestOutput
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.energy import EnergyShares
from shoestring.serve.backends.engine_thread import EngineStopped, EngineThread
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.prompts import EnginePrompt, engine_prompt
from shoestring.serve.backends.reply import Delta, FinishReason, TokenLogprob, ToolCallDelta, Usage, Work
from shoestring.serve.backends.request import BackendRequest
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.reply import ReplyPiece, ReplyReader, ToolPiece
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.special import THINK, THINK_END
from shoestring.tokenizer.stream import TextPiece, text_pieces
from shoestring.tokenizer.thinking import has_tags, thinking_tokens
from shoestring.train.report.energy import EnergyMeter

HEARTBEAT_LIMIT_S = 30.0
"""An engine that has not come round for so long counts as dead."""


class LocalBackend:
    """A model in this process. Use it on one event loop."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        template: Template | None,
        *,
        sampling: Mapping[str, Any] | None = None,
        energy: EnergyShares | None = None,
    ) -> None:
        """`template` is None for a model that can only continue texts; `sampling` has the defaults."""
        self._energy = energy or EnergyShares(EnergyMeter())
        self.engine, self._template = engine, template
        self.sampling = {name: value for name, value in (sampling or {}).items() if name != "max_tokens"}
        self._thread = EngineThread(engine)
        self._card = ModelCard(id=name, max_model_len=engine.max_model_len, created_s=int(time.time()))

    @property
    def card(self) -> ModelCard:
        return self._card

    @property
    def is_healthy(self) -> bool:
        return self._thread.is_alive and time.monotonic() - self._thread.heartbeat_s < HEARTBEAT_LIMIT_S

    def start(self) -> None:
        """Start the engine's thread on the running event loop."""
        self._thread.start()

    def set_yields(self, yields: bool) -> None:
        """Let other work of this machine go first, or no more."""
        self._thread.set_yields(yields)

    async def close(self) -> None:
        await self._thread.stop()

    async def tokenize(self, request: BackendRequest) -> tuple[int, ...]:
        return (await self._prompt(request)).token_ids

    async def detokenize(self, token_ids: Sequence[int]) -> str:
        if self.engine.tokenizer is None:
            raise RequestError("invalid", "this model has no tokenizer")
        return self.engine.tokenizer.decode(token_ids)

    async def prepare(self, request: BackendRequest) -> Work:
        prompt = await self._prompt(request)
        sampling = replace(prompt.sampling, output_kind="delta")
        most = most_tokens(sampling, len(prompt.token_ids), self.engine.max_model_len)
        engine_request = Request(
            request_id=secrets.token_hex(8),
            prompt_token_ids=prompt.token_ids,
            sampling_params=sampling,
            cache_salt=request.cache_salt,
            prompt_experts=prompt.experts,
            adapter=request.adapter,
        )
        try:
            self._check(engine_request)
        except ConfigError as error:
            raise RequestError("invalid", str(error)) from None
        await self._compile(sampling)

        async def start() -> AsyncGenerator[Delta]:
            return self._deltas(self._thread.outputs([engine_request]), prompt)

        return Work(
            model=self._card.id,
            prompt_tokens=len(prompt.token_ids),
            max_tokens=most,
            start=start,
        )

    def _check(self, request: Request) -> None:
        """Raise ConfigError for a request that the engine cannot serve."""
        engine = self.engine
        check_request(request, engine.model.config, engine.max_model_len, engine.tokenizer)

    async def _prompt(self, request: BackendRequest) -> EnginePrompt:
        """The prompt, rendered and encoded on another thread: a template may take a second."""
        return await asyncio.to_thread(engine_prompt, request, self.engine.tokenizer, self._template)

    async def _compile(self, sampling: SamplingParams) -> None:
        """Compile the request's grammar on another thread, so that the engine finds it ready."""
        if sampling.structured_outputs is None:
            return
        try:
            await asyncio.to_thread(self.engine.grammars.compile, sampling.structured_outputs)
        except (ConfigError, TokenizerError) as error:
            field = "tools" if sampling.structured_outputs.tools else "response_format"
            raise RequestError("invalid", str(error), field=field) from None

    async def _deltas(
        self, outputs: AsyncGenerator[RequestOutput], prompt: EnginePrompt
    ) -> AsyncGenerator[Delta]:
        choices = [_Choice(index, self.engine.tokenizer, prompt) for index in range(prompt.sampling.n)]
        usage = Usage(prompt_tokens=len(prompt.token_ids))
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(aclosing(outputs))
                joules = stack.enter_context(self._energy.answer())
                is_first = prompt.echo is not None
                async for output in outputs:
                    for choice in choices if is_first else ():
                        yield choice.echo(prompt, output)
                    is_first = False
                    for completion in output.outputs:
                        choice = choices[completion.index]
                        if choice.is_finished:
                            continue
                        usage = replace(
                            usage,
                            cached_tokens=output.num_cached_tokens,
                            completion_tokens=usage.completion_tokens + len(completion.token_ids),
                        )
                        for delta in choice.push(completion):
                            if delta.finish_reason is not None:
                                reasoning = sum(each.num_reasoning for each in choices)
                                usage = replace(usage, reasoning_tokens=reasoning, joules=joules())
                            yield replace(delta, usage=usage)
        except EngineStopped as error:
            raise RequestError("overloaded", str(error)) from None
        except ConfigError as error:
            raise RequestError("invalid", str(error)) from None


def most_tokens(sampling: SamplingParams, prompt_tokens: int, max_model_len: int) -> int:
    """The most tokens of a reply, all choices together. Raises RequestError for too long a prompt."""
    room = max_model_len - prompt_tokens
    if room <= 0:
        raise RequestError(
            "context_length",
            f"This model's maximum context length is {max_model_len} tokens, and the prompt has "
            f"{prompt_tokens} tokens; shorten it",
            field="messages",
        )
    return sampling.n * min(sampling.max_tokens or room, room)


def joined(pieces: Iterable[ReplyPiece]) -> Iterator[ReplyPiece]:
    """The pieces, with text of one kind that follows on itself in one piece."""
    for kind, group in groupby(pieces, key=lambda piece: getattr(piece, "kind", None)):
        if kind is None:
            yield from group
        else:
            text = "".join(piece.text for piece in group if isinstance(piece, TextPiece))
            yield TextPiece(text=text, kind=kind)


class _Choice:
    """One completion of a reply, read as deltas."""

    def __init__(self, index: int, tokenizer: Tokenizer | None, prompt: EnginePrompt) -> None:
        self.is_finished = False
        self.num_reasoning = 0
        """Tokens of the thinking, known at the end."""
        self._index, self._tokenizer = index, tokenizer
        self._opening = THINK if prompt.thinking else ""
        self._num_top = prompt.sampling.logprobs or 0
        self._reader = None
        if tokenizer is not None and prompt.is_chat:
            self._reader = ReplyReader(tokenizer, thinking=prompt.thinking, tool_format=prompt.tool_format)
        self._is_thinking = prompt.thinking
        self._token_ids: list[int] = []
        self._num_calls = 0

    def push(self, output: CompletionOutput) -> list[Delta]:
        """The deltas of the engine's new tokens; the last one has the finish reason alone."""
        if output.finish_reason in ("error", "abort"):
            raise RequestError("failed", f"the request failed: {output.stop_reason or output.finish_reason}")
        self._token_ids += output.token_ids
        pieces: list[ReplyPiece] = []
        if self._reader is None:
            pieces += text_pieces(output.text, "answer")
        else:
            pieces += self._reader.push(output.token_ids, output.text)
            pieces += self._reader.finish() if output.finish_reason else []
        deltas = [self._delta(piece) for piece in joined(pieces)]
        if output.logprobs is not None:
            logprobs = tuple(self._logprobs(output))
            first = deltas[0] if deltas else Delta(choice=self._index)
            deltas[:1] = [replace(first, logprobs=logprobs)] if logprobs or deltas else []
        if output.finish_reason is not None:
            deltas.append(self._finish(output))
        return deltas

    def echo(self, prompt: EnginePrompt, output: RequestOutput) -> Delta:
        """The prompt as the first delta."""
        first, entries = prompt.num_begin, []
        pairs = zip(prompt.token_ids, output.prompt_logprobs or (), strict=False)
        for token_id, logprobs in list(pairs)[first:]:
            entries.append(self._ranked(token_id, logprobs or {}))
        usage = Usage(prompt_tokens=len(prompt.token_ids), cached_tokens=output.num_cached_tokens)
        experts = None if output.prompt_experts is None else output.prompt_experts.tolist()
        delta = Delta(choice=self._index, text=prompt.echo or "", logprobs=tuple(entries), usage=usage)
        return replace(delta, prompt_experts=experts)

    def _delta(self, piece: ReplyPiece) -> Delta:
        if isinstance(piece, ToolPiece):
            is_new = piece.index == self._num_calls
            self._num_calls += is_new
            call = ToolCallDelta(
                index=piece.index,
                id=f"call_{secrets.token_hex(12)}" if is_new else "",
                name=piece.name,
                arguments=piece.arguments,
            )
            return Delta(choice=self._index, tool_calls=(call,))
        if piece.kind == "thinking":
            return Delta(choice=self._index, thinking=piece.text)
        return Delta(choice=self._index, text=piece.text)

    def _finish(self, output: CompletionOutput) -> Delta:
        self.is_finished = True
        if self._tokenizer is not None and self._reader is not None:
            self.num_reasoning = thinking_tokens(self._opening, self._token_ids, self._tokenizer)
        reason: FinishReason = "length" if output.finish_reason == "length" else "stop"
        if reason == "stop" and self._num_calls:
            reason = "tool_calls"
        stop = output.stop_reason if isinstance(output.stop_reason, str) else None
        return Delta(choice=self._index, finish_reason=reason, stop_sequence=stop)

    def _logprobs(self, output: CompletionOutput) -> "list[TokenLogprob]":
        """One entry for each token with text in the reply."""
        assert self._tokenizer is not None
        entries, hidden = [], self._tokenizer.hidden_ids
        tags = self._tokenizer.specials if has_tags(self._tokenizer) else {}
        for token_id, logprobs in zip(output.token_ids, output.logprobs or (), strict=True):
            if self._reader is not None and token_id in (tags.get(THINK), tags.get(THINK_END)):
                self._is_thinking = token_id == tags.get(THINK)
            elif token_id not in hidden:
                entries.append(replace(self._ranked(token_id, logprobs), is_thinking=self._is_thinking))
        return entries

    def _ranked(self, token_id: int, logprobs: Mapping[int, Logprob]) -> TokenLogprob:
        """A token with the likeliest ones in its place; without logprobs, which the first of all has not."""
        likeliest = sorted(logprobs.items(), key=lambda item: item[1].rank)[: self._num_top]
        alternatives = tuple(self._entry(other, each) for other, each in likeliest)
        return replace(self._entry(token_id, logprobs.get(token_id)), top=alternatives)

    def _entry(self, token_id: int, logprob: Logprob | None) -> TokenLogprob:
        assert self._tokenizer is not None
        data = self._tokenizer.token_bytes(token_id)
        value = None if logprob is None else logprob.logprob
        text = data.decode(errors="replace")
        return TokenLogprob(token=text, token_bytes=data, token_id=token_id, logprob=value)
