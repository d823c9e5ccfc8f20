"""Schemas of replies of Ollama's API."""

from typing import Any, Literal

from pydantic import Field

from shoestring.serve.dialects.schema import Schema


class OllamaFunction(Schema):
    name: str
    arguments: dict[str, Any]


class OllamaToolCall(Schema):
    function: OllamaFunction


class OllamaReplyMessage(Schema):
    role: Literal["assistant"]
    content: str
    thinking: str = ""
    tool_calls: list[OllamaToolCall] = Field(default_factory=list)


class OllamaReply(Schema):
    """The fields of both whole replies."""

    model: str
    created_at: str
    done: Literal[True]
    done_reason: Literal["stop", "length", "load"]
    total_duration: int = 0
    """This and the other durations are nanoseconds."""
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0


class OllamaChat(OllamaReply):
    """The whole reply of a chat."""

    message: OllamaReplyMessage


class OllamaGeneration(OllamaReply):
    """The whole reply to a prompt."""

    response: str
    thinking: str = ""


class OllamaModelDetails(Schema):
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    parent_model: str


class OllamaModel(Schema):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaModelDetails


class OllamaModels(Schema):
    """The models."""

    models: list[OllamaModel]


class OllamaProcess(Schema):
    name: str
    model: str
    size: int
    size_vram: int
    digest: str
    details: OllamaModelDetails
    expires_at: str


class OllamaProcesses(Schema):
    """The models in memory."""

    models: list[OllamaProcess]


class OllamaShow(Schema):
    """One model in full."""

    modelfile: str
    parameters: str
    template: str
    details: OllamaModelDetails
    model_info: dict[str, str | int]
    capabilities: list[str]


class Version(Schema):
    """The version of this program."""

    version: str
