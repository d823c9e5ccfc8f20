"""adapter_config.json of PEFT: its fields, and the model that an adapter was made for."""

import json
from pathlib import Path
from typing import Any

from shoestring.errors import CheckpointError

CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 1 << 20


def base_of(folder: Path) -> str:
    """The name of the model that an adapter was made for. Raises CheckpointError when it names none."""
    config = read_json(folder / CONFIG)
    name, revision = config.get("base_model_name_or_path"), config.get("revision")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder / CONFIG} names no base_model_name_or_path; add it")
    return f"{name}@{revision}" if isinstance(revision, str) and not Path(name).exists() else name


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises CheckpointError for a file that cannot be read or has no object."""
    try:
        with file.open("rb") as stream:
            content = json.loads(stream.read(MAX_CONFIG_BYTES + 1))
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise CheckpointError(f"{file} is not a JSON object; save the adapter again")
    return content
