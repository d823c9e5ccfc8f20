"""Replies to the prompts of a score: one turn each, or conversations in which the model calls tools."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from shoestring.engine.conversation.tool_use import ToolUse
from shoestring.engine.conversation.turns import Conversation, Start, converse
from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, RequestOutput, SamplingParams
from shoestring.tasks.verify import Verifier
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.questions import QuestionPrompt


class Sampler(Protocol):
    """An LLM, also one around a model in training."""

    @property
    def engine(self) -> Engine: ...

    @property
    def max_model_len(self) -> int: ...

    def get_tokenizer(self) -> Tokenizer: ...

    def generate(
        self, prompts: Sequence[Mapping[str, Any]], sampling_params: Sequence[SamplingParams], use_tqdm: bool
    ) -> list[RequestOutput]: ...


def sample_replies(
    llm: Sampler,
    prompts: Sequence[QuestionPrompt],
    params: Sequence[SamplingParams],
    *,
    tools: ToolUse | None,
    verifier: Verifier,
    show: bool,
) -> list[list[Conversation]]:
    """The n replies to each prompt, in the order of sampling."""
    if tools is None:
        inputs = [{"prompt_token_ids": prompt.ids} for prompt in prompts]
        outputs = llm.generate(inputs, params, use_tqdm=show)
        return [_one_turn(prompt, output) for prompt, output in zip(prompts, outputs, strict=True)]
    starts = [
        Start(
            request=Request(
                request_id=f"score {number}",
                prompt_token_ids=prompt.ids,
                sampling_params=replace(own, skip_special_tokens=False, output_kind="final_only"),
            ),
            prompt=prompt,
            tools=tools,
        )
        for number, (prompt, own) in enumerate(zip(prompts, params, strict=True))
    ]
    rows: dict[str, dict[int, Conversation]] = {start.request.request_id: {} for start in starts}
    for conversation in converse(llm.engine, starts, verifier):
        rows[conversation.request_id][conversation.place] = conversation
    return [[row[place] for place in sorted(row)] for row in rows.values()]


def _one_turn(prompt: QuestionPrompt, output: RequestOutput) -> list[Conversation]:
    return [
        Conversation(
            request_id=output.request_id,
            place=completion.index,
            token_ids=tuple(completion.token_ids),
            is_own=(True,) * len(completion.token_ids),
            text=prompt.opening + completion.text,
            finish_reason=completion.finish_reason,
            num_turns=1,
        )
        for completion in output.outputs
    ]
