"""Schemas of Ollama's replies, and its descriptions of models."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.dialects.schema import Schema

LATEST = ":latest"
"""The tag of a name without one. Clients add it themselves, and look the model up by that name."""
FAMILY = "shoestring"
NEVER = "2318-04-02T00:00:00Z"
"""The time at which a model leaves the memory that leaves it only for another one."""


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


class OllamaShowRequest(BaseModel):
    """Body of POST /api/show."""

    model_config = ConfigDict(extra="allow", strict=True)
    model: Annotated[str, Field(max_length=512)] = ""
    name: Annotated[str, Field(max_length=512)] = ""
    """The older name of `model`."""


def list_entry(name: str, created_s: int) -> dict[str, Any]:
    """A model in the list."""
    modified = datetime.fromtimestamp(created_s, UTC).isoformat().replace("+00:00", "Z")
    return {**_entry(name), "modified_at": modified}


def process_entry(name: str, num_bytes: int) -> dict[str, Any]:
    """A model in memory, which takes so many bytes."""
    return {**_entry(name), "size": num_bytes, "size_vram": 0, "expires_at": NEVER}


def show_entry(card: ModelCard, *, has_chat: bool) -> dict[str, Any]:
    """One model in full."""
    return {
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": _details(),
        "model_info": {"general.architecture": FAMILY, f"{FAMILY}.context_length": card.max_model_len},
        "capabilities": ["completion", "tools"] if has_chat else ["completion"],
    }


def _entry(name: str) -> dict[str, Any]:
    full_name = name if ":" in name else f"{name}{LATEST}"
    return {"name": full_name, "model": full_name, "size": 0, "digest": "", "details": _details()}


def _details() -> dict[str, Any]:
    details = {"format": "safetensors", "family": FAMILY, "families": [FAMILY], "parameter_size": ""}
    return {**details, "quantization_level": "", "parent_model": ""}
