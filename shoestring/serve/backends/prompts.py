"""A request to a backend as the engine's prompt and sampling: template, tools, fill-in-the-middle, form."""

from dataclasses import dataclass, replace
from typing import Any

from shoestring.errors import ConfigError, TokenizerError
from shoestring.sampling_params import SamplingParams, StructuredOutputsParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.request import BackendRequest, ChatRequest, TextRequest
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.chat.tool_format import TOOL_FORMATS, ToolFormat, tool_format_name
from shoestring.tokenizer.prompts import ChatOptions, read_chat, read_prompts
from shoestring.tokenizer.special import THINK_END
from shoestring.tokenizer.thinking import ends_in_thinking

FILL_IN_THE_MIDDLE = (
    (sp.FIM_BEGIN, sp.FIM_HOLE, sp.FIM_END),
    ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
)
"""Tokens before the text, before the suffix, and before what fills the gap: DeepSeek's and Qwen's."""


@dataclass(frozen=True, kw_only=True)
class EnginePrompt:
    """The engine's input for a request, and the facts that reading its reply needs."""

    token_ids: tuple[int, ...]
    sampling: SamplingParams
    is_chat: bool = False
    """The reply is a turn, with thinking and tool calls; else a text as it is."""
    thinking: bool = False
    """The prompt ends inside the thinking."""
    tool_format: ToolFormat | None = None
    """None for a request without tools."""
    echo: str | None = None
    """The prompt's text, if the reply begins with it."""
    num_begin: int = 0
    """Tokens of the prompt before its text."""
    experts: bool = False
    """The echo names the experts of the prompt's tokens."""


def engine_prompt(
    request: BackendRequest, tokenizer: Tokenizer | None, template: Template | None
) -> EnginePrompt:
    """The prompt of a request. Raises RequestError naming what is wrong with it."""
    try:
        if isinstance(request, TextRequest):
            prompt = EnginePrompt(token_ids=_text_ids(request, tokenizer), sampling=request.sampling)
            return _with_echo(prompt, request, tokenizer) if request.echo else prompt
        if tokenizer is None or template is None:
            raise RequestError("invalid", "this model has no chat template; use /v1/completions")
        return _chat_prompt(request, tokenizer, template)
    except (ConfigError, TokenizerError) as error:
        raise RequestError("invalid", str(error), field="messages") from None


def _chat_prompt(request: ChatRequest, tokenizer: Tokenizer, template: Template) -> EnginePrompt:
    tools = request.tools if request.tool_choice != "none" else ()
    name = tool_format_name(template, tokenizer) if tools else None
    if tools and name is None:
        raise RequestError("invalid", "this model's chat template has no tool calls", field="tools")
    variables = dict(request.template_variables)
    if request.thinking is not None:
        variables["thinking"] = request.thinking
    options = ChatOptions(
        tools=tools or None,
        add_generation_prompt=not request.continue_final_message,
        continue_final_message=request.continue_final_message,
        chat_template_kwargs=variables or None,
    )
    prompt = read_chat(request.messages, tokenizer, template, options)
    thinking = ends_in_thinking(prompt.token_ids, tokenizer)
    form = _form(request, name, after=_thinking_end(tokenizer) if thinking else None, thinking=thinking)
    return EnginePrompt(
        token_ids=prompt.token_ids,
        sampling=replace(request.sampling, structured_outputs=form, skip_special_tokens=False),
        is_chat=True,
        thinking=thinking,
        tool_format=TOOL_FORMATS[name] if name else None,
    )


def _form(
    request: ChatRequest, tool_format: str | None, *, after: int | None, thinking: bool
) -> StructuredOutputsParams | None:
    """The form of the reply after its thinking: the tools' grammar, or what the request asks for."""
    form = request.sampling.structured_outputs
    if tool_format is not None:
        tools: dict[str, Any] = {
            "tools": request.tools,
            "tool_choice": request.tool_choice,
            "parallel_tool_calls": request.parallel_tool_calls,
            "tool_format": tool_format,
        }
        form = StructuredOutputsParams(**tools) if form is None else replace(form, **tools)
    if form is None:
        return None
    if thinking and after is None:
        raise RequestError(
            "invalid",
            "this model's thinking ends in plain text, so no form can begin after it; turn thinking off",
            field="response_format",
        )
    return replace(form, after_token_id=after)


def _thinking_end(tokenizer: Tokenizer) -> int | None:
    return tokenizer.specials.get(THINK_END)


def _with_echo(prompt: EnginePrompt, request: TextRequest, tokenizer: Tokenizer | None) -> EnginePrompt:
    """The prompt of a reply that begins with it, and has its logprobs if it has those of the completion."""
    if tokenizer is None:
        raise RequestError("invalid", "this model has no tokenizer, so it has no text to echo", field="echo")
    text = request.prompt
    return replace(
        prompt,
        echo=text if isinstance(text, str) else tokenizer.decode(text),
        experts=request.experts,
        num_begin=len(tokenizer.begin_ids) if isinstance(text, str) else 0,
        sampling=replace(prompt.sampling, prompt_logprobs=prompt.sampling.logprobs),
    )


def _text_ids(request: TextRequest, tokenizer: Tokenizer | None) -> tuple[int, ...]:
    if request.suffix is None:
        return read_prompts(request.prompt, tokenizer)[0].token_ids
    if tokenizer is None or not isinstance(request.prompt, str):
        raise RequestError("invalid", "a suffix goes with a text prompt", field="suffix")
    for marks in FILL_IN_THE_MIDDLE:
        if all(mark in tokenizer.specials for mark in marks):
            before, after = tokenizer.encode_batch([request.prompt, request.suffix])
            begin, hole, end = (tokenizer.special_id(mark) for mark in marks)
            return (*tokenizer.begin_ids, begin, *before, hole, *after, end)
    raise RequestError("invalid", "this model cannot fill in the middle; leave out suffix", field="suffix")
