"""Conversations with tools: turns of the model, and between them the results of the tools that it calls."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from shoestring.engine.conversation.tool_use import ToolUse
from shoestring.engine.dispatch import Dispatcher
from shoestring.engine.engine import Engine
from shoestring.engine.request import CompletionOutput, Request, derived_seed
from shoestring.tasks.verify import ToolCall, Verifier
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.questions import QuestionPrompt
from shoestring.tokenizer.special import THINK
from shoestring.tokenizer.thinking import ends_in_thinking


@dataclass(frozen=True, kw_only=True)
class Start:
    """The begin of some conversations: one request of n completions."""

    request: Request
    prompt: QuestionPrompt
    tools: ToolUse | None = None


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """All after a prompt: the model's tokens and those of tools' results, exactly as they were sampled on."""

    request_id: str
    """Of its first request."""
    place: int
    """The number of the completion of that request."""
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    """The engine's, of the model's tokens; 0 for others."""
    is_own: tuple[bool, ...] = ()
    """Whether a token is the model's."""
    text: str = ""
    """The last turn, with what the prompt opened."""
    finish_reason: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    """Turns and results; empty without tools."""
    num_turns: int = 0
    num_calls: int = 0
    num_errors: int = 0
    """Calls whose result is an error."""
    experts: Tensor | None = field(default=None, compare=False)
    """Routed experts of all tokens but the last, those of the prompt included."""

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        """The calls of the last turn."""
        return self.messages[-1].get("tool_calls", ()) if self.messages else ()


def converse(
    engine: Engine, starts: Sequence[Start], verifier: Verifier, on_step: Callable[[], None] = lambda: None
) -> Iterator[Conversation]:
    """Conversations as they end, in any order; the tokens of one depend on its start and its place alone.

    No token is encoded twice: a turn goes on after the very ids that were sampled. `max_tokens` of the
    request bounds all tokens after its prompt. `on_step` is called after each batch of the engine.
    """
    open_turns = {start.request.request_id: (start.request, start, _begin(start)) for start in starts}
    while open_turns:
        with_calls: list[tuple[Start, Conversation]] = []
        requests = [request for request, _, _ in open_turns.values()]
        with Dispatcher(engine).outputs(requests, on_step=on_step) as outputs:
            for output in outputs:
                request, start, before = open_turns[output.request_id]
                for place, completion in enumerate(output.outputs):
                    after = _after_turn(request, start, before, completion, place)
                    if start.tools and after.calls and after.num_turns < start.tools.max_turns:
                        with_calls.append((start, after))
                    else:
                        yield after
        open_turns = {}
        for start, conversation in _with_results(with_calls, verifier):
            if (next_turn := _next_request(start, conversation, engine.max_model_len)) is None:
                yield replace(conversation, finish_reason="length")
            else:
                open_turns[next_turn.request_id] = next_turn, start, conversation


def _begin(start: Start) -> Conversation:
    return Conversation(request_id=start.request.request_id, place=-1)


def _after_turn(
    request: Request, start: Start, before: Conversation, completion: CompletionOutput, place: int
) -> Conversation:
    """The conversation with one more turn of the model."""
    ids = tuple(completion.token_ids)
    if start.tools is None:
        text, message = start.prompt.opening + completion.text, []
    else:
        text = _opening(request, start) + _text(ids, start.tools.tokenizer)
        message = [start.tools.read(request.prompt_token_ids, completion)]
    experts = completion.routed_experts
    if experts is not None and before.experts is not None:  # earlier tokens keep those they were drawn with
        experts = torch.cat((before.experts, experts[len(before.experts) :]))
    return replace(
        before,
        place=place if before.place < 0 else before.place,
        token_ids=(*before.token_ids, *ids),
        logprobs=(*before.logprobs, *(completion.token_logprobs or ())),
        is_own=(*before.is_own, *(True,) * len(ids)),
        text=text,
        finish_reason=completion.finish_reason,
        messages=(*before.messages, *message),
        num_turns=before.num_turns + 1,
        experts=experts,
    )


def _with_results(
    open_calls: Sequence[tuple[Start, Conversation]], verifier: Verifier
) -> Iterator[tuple[Start, Conversation]]:
    """The conversations with the results of the calls of their last turns."""
    calls = [
        ToolCall(task=start.tools.task, **call["function"])
        for start, conversation in open_calls
        if start.tools is not None
        for call in conversation.calls
    ]
    results = iter(verifier.call_tools(calls))
    for start, conversation in open_calls:
        assert start.tools is not None
        messages, num_errors = list[dict[str, Any]](), 0
        for number, call in enumerate(conversation.calls):
            result = next(results)
            name = {"tool_call_id": f"call_{number}", "name": call["function"]["name"]}
            messages.append({"role": "tool", **name, "content": result.text})
            num_errors += result.is_error
        ids = tuple(start.tools.result_ids(messages))
        yield (
            start,
            replace(
                conversation,
                token_ids=(*conversation.token_ids, *ids),
                logprobs=(*conversation.logprobs, *(0.0,) * len(ids)),
                is_own=(*conversation.is_own, *(False,) * len(ids)),
                messages=(*conversation.messages, *messages),
                num_calls=conversation.num_calls + len(messages),
                num_errors=conversation.num_errors + num_errors,
            ),
        )


def _next_request(start: Start, conversation: Conversation, context: int) -> Request | None:
    """The request for the next turn; None where there is no room for one."""
    params = start.request.sampling_params
    assert params.max_tokens is not None
    prompt_ids = (*start.prompt.ids, *conversation.token_ids)
    room = params.max_tokens - len(conversation.token_ids)
    if room < 1 or len(prompt_ids) >= context:
        return None
    name = f"{conversation.request_id}.{conversation.place}.{conversation.num_turns}"
    seed = None if params.seed is None else derived_seed(params.seed, name)
    return Request(
        request_id=name,
        prompt_token_ids=prompt_ids,
        sampling_params=replace(params, n=1, max_tokens=room, seed=seed),
    )


def _opening(request: Request, start: Start) -> str:
    """The begin of a turn that stands in its prompt."""
    if request is start.request:
        return start.prompt.opening
    assert start.tools is not None
    return THINK if ends_in_thinking(request.prompt_token_ids, start.tools.tokenizer) else ""


def _text(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    """The text of a turn without the tokens that only steer."""
    visible = [i for i in token_ids if i not in tokenizer.hidden_ids]
    return b"".join(tokenizer.token_bytes(i) for i in visible).decode(errors="replace")
