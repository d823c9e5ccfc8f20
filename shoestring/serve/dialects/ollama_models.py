"""Ollama's descriptions of models: in its list, in memory, and one in full."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from shoestring.serve.backends.backend import ModelCard

LATEST = ":latest"
"""The tag of a name without one. Clients add it themselves, and look the model up by that name."""
FAMILY = "shoestring"
NEVER = "2318-04-02T00:00:00Z"
"""The time at which a model leaves the memory that leaves it only for another one."""


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
