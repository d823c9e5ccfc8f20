"""Outputs of requests: ids -> text with stop strings, finish reasons, and RequestOutput after each step."""

import codecs
from contextlib import suppress

import torch
from torch import Tensor

from shoestring.engine.draw import SampledTokens
from shoestring.engine.request import (
    CompletionOutput,
    FinishReason,
    Logprob,
    Request,
    RequestMetrics,
    RequestOutput,
    SamplingParams,
    bad_words,
)
from shoestring.engine.sequence import Sequence
from shoestring.tokenizer.bpe import Tokenizer


class StopString:
    """The longest beginning of a stop string that ends the text (Knuth, Morris and Pratt's automaton)."""

    def __init__(self, text: str) -> None:
        self.text, self.num_matched = text, 0
        # For a match of each length: the next shorter beginning of the stop string that it ends with.
        self._shorter = [0] * (len(text) + 1)
        for end in range(1, len(text)):
            self._shorter[end + 1] = self._next(self._shorter[end], text[end])

    def push(self, char: str) -> bool:
        """Add a character of the text; returns whether the text now ends with the whole stop string."""
        self.num_matched = self._next(self.num_matched, char)
        return self.num_matched == len(self.text)

    def _next(self, length: int, char: str) -> int:
        while length and (length == len(self.text) or self.text[length] != char):
            length = self._shorter[length]
        return length + (self.text[length] == char)


class TextOutput:
    """The text of one completion as its tokens arrive.

    Bytes of an incomplete character are held back, and so is the end of the text while it may become a stop
    string: the first `num_final` characters of `text` do not change any more. A text that nobody reads before
    its end is decoded there.
    """

    def __init__(self, tokenizer: Tokenizer | None, params: SamplingParams) -> None:
        self.text, self.num_final = "", 0
        self._tokenizer = tokenizer if params.detokenize else None
        self._hidden: frozenset[int] = frozenset()
        if self._tokenizer is not None and params.skip_special_tokens:
            self._hidden = self._tokenizer.hidden_ids
        self._keep_stop = params.include_stop_str_in_output
        self._stops = [StopString(text) for text in params.stop]
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._is_read_at_end = params.is_read_at_end
        self._unread = bytearray()

    def push(self, token_id: int, *, may_stop: bool = True) -> str | None:
        """Add a token; returns the stop string that ends the text, by default cut off."""
        if self._tokenizer is None or token_id in self._hidden:
            return None
        if self._is_read_at_end:
            self._unread += self._tokenizer.token_bytes(token_id)
            return None
        return self._add(self._decoder.decode(self._tokenizer.token_bytes(token_id)), may_stop)

    def extend(self, token_ids: list[int]) -> None:
        """Add tokens to a text that is read at its end."""
        if self._tokenizer is not None:
            token_bytes, hidden = self._tokenizer.token_bytes, self._hidden
            self._unread += b"".join(
                [token_bytes(token_id) for token_id in token_ids if token_id not in hidden]
            )

    def finish(self) -> None:
        """End the text: all of it is final, an incomplete character as U+FFFD."""
        self.text += self._decoder.decode(bytes(self._unread), final=True)
        self._unread.clear()
        self.num_final = len(self.text)

    def _add(self, new: str, may_stop: bool) -> str | None:
        if not self._stops:
            self.text += new
            self.num_final = len(self.text)
            return None
        for place, char in enumerate(new):
            # Of several that end here the longest counts; every automaton must get every character.
            stop_text = max((stop.text for stop in self._stops if stop.push(char)), key=len, default=None)
            if stop_text is not None and may_stop:
                whole = self.text + new[: place + 1]
                self.text = whole if self._keep_stop else whole[: -len(stop_text)]
                self._decoder.reset()
                return stop_text
        self.text += new
        self.num_final = max(self.num_final, len(self.text) - max(stop.num_matched for stop in self._stops))
        return None


class CompletionState:
    """One sequence's output so far, and its end."""

    def __init__(self, sequence: Sequence, tokenizer: Tokenizer | None, eos_ids: frozenset[int]) -> None:
        self.sequence, params = sequence, sequence.params
        self.finish_reason: FinishReason | None = None
        self.stop_reason: int | str | None = None
        self.token_ids: list[int] = []
        self.text = TextOutput(tokenizer, params)
        self.token_logprobs: list[float] = []
        self.logprobs: list[dict[int, Logprob]] = []
        self.routed_experts: Tensor | None = None
        self.last_token_s: float | None = None
        self._eos_ids = frozenset() if params.ignore_eos else eos_ids
        self._stop_ids = frozenset(params.stop_token_ids)
        self._delta_start = (0, 0)  # tokens and characters of earlier deltas

    @property
    def end_ids(self) -> frozenset[int]:
        """The tokens that finish it."""
        return self._eos_ids | self._stop_ids

    def accept(self, result: SampledTokens) -> list[int]:
        """Append tokens until one of them finishes the completion; returns those."""
        count = 0
        try:
            for token_id in result.ids:
                count += 1
                self.token_ids.append(token_id)
                self._check(token_id)
                if self.finish_reason is not None:
                    break
        finally:
            self.token_logprobs += result.token_logprobs[:count]
            self.logprobs += result.logprobs[:count]
        return result.ids[:count]

    def extend(self, result: SampledTokens) -> None:
        """Append tokens of which only the last may finish the completion; its text is read at its end."""
        if result.ids:
            self.token_ids += result.ids[:-1]
            self.token_logprobs += result.token_logprobs[:-1]
            self.text.extend(result.ids[:-1])
            self.accept(SampledTokens(result.ids[-1:], result.token_logprobs[-1:]))

    def finish(self, reason: FinishReason, stop_reason: int | str | None = None) -> None:
        self.finish_reason, self.stop_reason = reason, stop_reason
        self.text.finish()

    def fail(self, error: str) -> None:
        """Finish with "error", whatever state the text is in."""
        with suppress(Exception):
            self.text.finish()
        self.finish_reason, self.stop_reason = "error", error

    def _check(self, token_id: int) -> None:
        params = self.sequence.params
        if token_id in self._eos_ids or token_id in self._stop_ids:
            if params.include_stop_str_in_output:
                self.text.push(token_id, may_stop=False)
            return self.finish("stop", token_id if token_id in self._stop_ids else None)
        stop = self.text.push(token_id, may_stop=len(self.token_ids) >= params.min_tokens)
        if stop is not None:
            self.finish("stop", stop)
        elif self.sequence.num_prompt_tokens + len(self.token_ids) >= self.sequence.max_length:
            self.finish("length")

    def output(self) -> CompletionOutput:
        """The CompletionOutput by the request's output_kind; a delta is reported once."""
        params, (tokens, characters) = self.sequence.params, (0, 0)
        if params.output_kind == "delta":
            tokens, characters = self._delta_start
            self._delta_start = (len(self.token_ids), self.text.num_final)
        return CompletionOutput(
            index=self.sequence.index,
            text=self.text.text[characters : self.text.num_final],
            token_ids=self.token_ids[tokens:],
            cumulative_logprob=sum(self.token_logprobs) if params.has_logprobs else None,
            token_logprobs=self.token_logprobs[tokens:] if params.has_logprobs else None,
            logprobs=None if params.logprobs is None else self.logprobs[tokens:],
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            routed_experts=self.routed_experts,
        )


class RequestState:
    """A request in the engine: its completions and its times."""

    def __init__(self, request: Request, completions: list[CompletionState]) -> None:
        self.request, self.completions = request, completions
        self.first_token_s: float | None = None
        self.last_token_s: float | None = None
        self.num_drafted = self.num_accepted = 0
        self._tick: float | None = None
        self.prompt_logprobs: list[dict[int, Logprob] | None] | None = None
        """Those of the prompt's first tokens, as far as they are computed, if the request has them."""
        if request.sampling_params.prompt_logprobs is not None:
            self.prompt_logprobs = [None]
        self.prompt_experts: list[Tensor] = []
        """Those of the prompt's first tokens, each (MoE layers, K), if the request asks for them."""

    @classmethod
    def start(
        cls, request: Request, max_length: int, tokenizer: Tokenizer | None, eos_ids: frozenset[int]
    ) -> "RequestState":
        """A request with its n completions, which end at `max_length`."""
        words = bad_words(request.sampling_params.bad_words or (), tokenizer)
        sequences: list[Sequence] = []
        for index in range(request.sampling_params.n):
            leader = sequences[0] if index else None
            sequences.append(Sequence.start(request, index, max_length, leader))
            sequences[-1].bad_words = words
        return cls(request, [CompletionState(each, tokenizer, eos_ids) for each in sequences])

    @property
    def finished(self) -> bool:
        return all(completion.finish_reason is not None for completion in self.completions)

    def is_due(self, tick: float | None) -> bool:
        """Return whether its output is due: the first one in a tick of the clock, and the last one."""
        is_new = tick is None or tick != self._tick
        self._tick = tick
        return is_new or self.finished

    def record_token_time(self, now: float) -> None:
        """Record that a token was accepted `now`."""
        self.last_token_s = now
        self.first_token_s = self.first_token_s or self.last_token_s

    def output(self) -> RequestOutput:
        """The RequestOutput with each completion's output."""
        return self._output([completion.output() for completion in self.completions])

    def _prompt_experts(self) -> Tensor | None:
        is_whole = len(self.prompt_experts) == len(self.request.prompt_token_ids)
        return torch.stack(self.prompt_experts) if is_whole else None

    def error_output(self, error: str) -> RequestOutput:
        """The RequestOutput of a request whose outputs cannot be made: each completion failed."""
        outputs = []
        for completion in self.completions:
            completion.fail(error)
            index = completion.sequence.index
            failed = CompletionOutput(
                index=index, text="", token_ids=[], finish_reason="error", stop_reason=error
            )
            outputs.append(failed)
        return self._output(outputs)

    def _output(self, outputs: list[CompletionOutput]) -> RequestOutput:
        request = self.request
        return RequestOutput(
            request_id=request.request_id,
            prompt=request.prompt,
            prompt_token_ids=list(request.prompt_token_ids),
            outputs=outputs,
            finished=self.finished,
            prompt_logprobs=self.prompt_logprobs,
            prompt_experts=self._prompt_experts(),
            num_cached_tokens=self.completions[0].sequence.num_cached_tokens,
            metrics=RequestMetrics(
                arrival_s=request.arrival_s,
                first_token_s=self.first_token_s,
                last_token_s=self.last_token_s,
                drafted_tokens=self.num_drafted,
                accepted_tokens=self.num_accepted,
            ),
        )
