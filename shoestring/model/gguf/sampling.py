"""Sampling that a GGUF file recommends, as generation_config.json."""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np

from shoestring.durable import write_atomic
from shoestring.model.config import ModelConfig
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.hf.checkpoint import GENERATION_FILE

log = logging.getLogger(__name__)

PREFIX = "general.sampling."
FIELDS = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "penalty_repeat": "repetition_penalty",
}
"""Names of generation_config.json for those of GGUF."""


def save_sampling(file: GGUFFile, config: ModelConfig, folder: Path) -> None:
    """Write generation_config.json if the file recommends a sampling. Raises StorageError."""
    sampling = {
        key.removeprefix(PREFIX): value for key, value in file.metadata.items() if key.startswith(PREFIX)
    }
    settings = {
        FIELDS[key]: _short(value) for key, value in sampling.items() if key in FIELDS and _is_number(value)
    }
    if others := [key for key, value in sampling.items() if key not in FIELDS and value]:
        log.warning("%s recommends %s%s, which has no counterpart here", file.path, PREFIX, ", ".join(others))
    if settings:
        ids = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
        fields: dict[str, Any] = {key: value for key, value in ids.items() if value is not None}
        fields |= {"do_sample": settings.get("temperature", 1) > 0, **settings}
        write_atomic(folder / GENERATION_FILE, json.dumps(fields, indent=2) + "\n")


def write_sampling(generation: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata for the fields of generation_config.json that GGUF has keys for."""
    if generation.get("do_sample") is False:
        return {}
    settings = {key: generation.get(field) for key, field in FIELDS.items()}
    return {
        f"{PREFIX}{key}": int(value) if key == "top_k" else float(value)
        for key, value in settings.items()
        if _is_number(value)
    }


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _short(value: float) -> float:
    """The shortest decimal of a float32: 0.7, not 0.699999988."""
    return value if isinstance(value, int) else float(str(np.float32(value)))
