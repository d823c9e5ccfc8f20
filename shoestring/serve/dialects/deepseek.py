"""DeepSeek's own rules on top of OpenAI's chat completions: modes by a model's name, and eras of thinking."""

from collections.abc import Iterable
from enum import StrEnum

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.openai_chat_request import ChatCompletionRequest, asks_thinking
from shoestring.serve.dialects.openai_completions import CompletionRequest
from shoestring.serve.dialects.openai_fields import Thinking
from shoestring.serve.dialects.strict_tools import check_strict_tools

REASONER, CHAT = "deepseek-reasoner", "deepseek-chat"
"""Names of one model with thinking and without, in DeepSeek's API of 2025."""
MAX_COMPLETION_TOKENS = 4096
"""The longest completion of a text in DeepSeek's API."""
IGNORED_WHILE_THINKING = ("temperature", "top_p", "presence_penalty", "frequency_penalty")
PASS_BACK = "The reasoning_content in the thinking mode must be passed back to the API."


class Era(StrEnum):
    """The time whose rules hold on DeepSeek's paths."""

    ANY = "any"
    """No rule of a time: what any of them takes is taken."""
    EARLY_2025 = "2025-01"
    """The first R1: no tools, no JSON, no prefix and no logprobs with thinking; old thinking is refused."""
    MID_2025 = "2025-05"
    """R1's update: JSON output, prefixes and tools; old thinking is still refused."""
    LATE_2026 = "2026"
    """Thinking is the default; with tools, the thinking of earlier calls must be passed back."""


def deepseek_chat(body: ChatCompletionRequest, era: Era) -> ChatCompletionRequest:
    """The request with DeepSeek's modes. Raises RequestError for what strict tools or the era refuse."""
    check_strict_tools(body.tools or ())
    body = body.model_copy(update={"thinking": _mode(body, era)})
    if era is Era.ANY:
        return body
    if (body.response_format or {}).get("type") == "json_object" and not _says_json(body):
        message = "the prompt must contain the word json when response_format is json_object"
        raise RequestError("invalid", message, field="response_format")
    if not asks_thinking(body):
        return body
    _check_history(body, era)
    if era is not Era.LATE_2026 and body.logprobs:
        raise RequestError("invalid", f"{REASONER} has no logprobs", field="logprobs")
    if era is Era.EARLY_2025:
        _check_first_reasoner(body)
    return body.model_copy(update=dict.fromkeys(IGNORED_WHILE_THINKING))


def deepseek_completion(body: CompletionRequest, era: Era) -> CompletionRequest:
    """The request as it is. Raises RequestError for what the era refuses."""
    if era is not Era.ANY and body.model == REASONER:
        raise RequestError("invalid", f"{REASONER} completes no text; use {CHAT}", field="model")
    if era is not Era.ANY and (body.max_tokens or 0) > MAX_COMPLETION_TOKENS:
        message = f"max_tokens = {body.max_tokens} must be at most {MAX_COMPLETION_TOKENS}"
        raise RequestError("parameter", message, field="max_tokens")
    return body


def claude_model(model: str, names: Iterable[str]) -> str:
    """The model for a name of Anthropic's: pro for opus, flash for the others, else the default one.

    Raises RequestError for any other unknown name.
    """
    names = list(names)
    if model in names:
        return model
    if not model.startswith("claude-"):
        message = f"the model {model[:100]!r} does not exist; there are {', '.join(names)}"
        raise RequestError("invalid", message, field="model")
    size = "pro" if model.startswith("claude-opus") else "flash"
    return next((name for name in names if size in name.split("-")), names[0])


def _mode(body: ChatCompletionRequest, era: Era) -> Thinking | None:
    """The switch of thinking: the request's own, else by the model's name, else the era's default."""
    if body.thinking is not None or body.reasoning_effort is not None:
        return body.thinking
    if body.model in (REASONER, CHAT):
        return Thinking(type="enabled" if body.model == REASONER else "disabled")
    return Thinking(type="enabled") if era is Era.LATE_2026 else None


def _check_history(body: ChatCompletionRequest, era: Era) -> None:
    """Refuse a history whose thinking is not as the era wants it."""
    turns = [message for message in body.messages if message.role == "assistant" and not message.prefix]
    if era is Era.LATE_2026:
        if any(turn.tool_calls and turn.reasoning_content is None for turn in turns):
            raise RequestError("invalid", PASS_BACK, field="messages")
    elif any(turn.reasoning_content is not None for turn in turns):
        message = "reasoning_content of an earlier answer must not be sent back"
        raise RequestError("invalid", message, field="messages")


def _check_first_reasoner(body: ChatCompletionRequest) -> None:
    asked = {
        "tools": bool(body.tools),
        "response_format": (body.response_format or {}).get("type", "text") != "text",
        "messages": any(message.prefix for message in body.messages),
    }
    for field in (name for name, is_asked in asked.items() if is_asked):
        words = {"tools": "tools", "response_format": "JSON output", "messages": "prefixes"}[field]
        raise RequestError("invalid", f"{REASONER} has no {words}; use {CHAT}", field=field)


def _says_json(body: ChatCompletionRequest) -> bool:
    return any("json" in message.text.lower() for message in body.messages)
