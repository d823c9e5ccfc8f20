"""Manifest of a score: the model, task, settings and versions that repeat it, and a comparison of results."""

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from shoestring.data.folder import sha256_of
from shoestring.durable import write_atomic
from shoestring.errors import CheckpointError, DataError
from shoestring.model.hf.folder import TOKENIZER_FILES
from shoestring.tasks.task import Example
from shoestring.train.report.receipt import code_version

FORMAT = 1
MAX_BYTES = 64 << 20
LIBRARIES = ("torch", "numpy", "tokenizers", "lm_eval", "math-verify", "reasoning-gym")
"""Libraries that a figure may depend on; those that are not installed are left out."""
FIELDS: Mapping[str, type] = {
    "name": str,
    "model": dict,
    "config": dict,
    "runtime": dict,
    "versions": dict,
    "result": dict,
}


class Difference(NamedTuple):
    """A figure that came out differently; None where it is missing."""

    name: str
    was: Any
    now: Any

    def __str__(self) -> str:
        return f"{self.name} was {self.was} and is {self.now}"


def describe(
    name: str, *, model: Mapping[str, Any], config: Any, runtime: Mapping[str, Any]
) -> dict[str, Any]:
    """A score's manifest without its `result`.

    Args:
        name: `text`, a task's name as `load_task` takes it, or `lm_eval:` with names of its tasks.
        model: as `identify` gives it.
        config: the dataclass whose fields determine the result.
        runtime: device and precision.
    """
    assert is_dataclass(config)
    assert not isinstance(config, type)
    data = {
        "format": FORMAT,
        "name": name,
        "model": dict(model),
        "config": asdict(config),
        "runtime": dict(runtime),
        "versions": versions(),
    }
    manifest: dict[str, Any] = _as_json(data)
    return manifest


def identify(name: str, *folders: Path) -> dict[str, Any]:
    """A model's name and the SHA-256 of its files; reads all of them.

    They are the weights, config, tokenizer and template of the model in the first folder, and those of
    adapters in the others.
    """
    try:
        files = {file.name: sha256_of(file) for file in _files(folders[0])}
        for number, folder in enumerate(folders[1:], 1):
            files |= {f"adapter {number}: {file.name}": sha256_of(file) for file in _files(folder)}
    except OSError as error:
        raise CheckpointError(f"cannot read {error.filename}: {error.strerror}") from None
    return {"name": name, "sha256": files}


def _files(folder: Path) -> list[Path]:
    small_files = [folder / file for file in ("config.json", "adapter_config.json", *TOKENIZER_FILES)]
    return [file for file in small_files if file.is_file()] + sorted(folder.glob("*.safetensors"))


def problems_sha256(examples: Sequence[Example]) -> str:
    """A digest of the problems themselves: data can change while options and seed stay the same."""
    rows = [asdict(example) for example in examples]
    rows = [
        {k: v for k, v in row.items() if v or k != "messages"} for row in rows
    ]  # as before there were any
    text = json.dumps(rows, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def versions() -> dict[str, Any]:
    """Versions of our code, Python, and the installed libraries that a figure may depend on."""
    numbers = {"shoestring": code_version(), "python": platform.python_version()}
    for library in LIBRARIES:
        try:
            numbers[library] = metadata.version(library)
        except metadata.PackageNotFoundError:
            continue
    return numbers


def write_score(path: Path, score: Mapping[str, Any]) -> None:
    """Write a manifest with its `result`. Raises StorageError."""
    write_atomic(path, json.dumps(score, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_score(path: Path) -> dict[str, Any]:
    """Read a file of `write_score` without trusting it. Raises DataError naming its fault."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} is larger than {MAX_BYTES >> 20} MiB, so it is not a score")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"cannot read the score {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise DataError(f"{path} is not JSON; give a file that `shoestring eval --out` wrote") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a score of format {FORMAT}; give a file that `shoestring eval --out` wrote"
        )
    for name, kind in FIELDS.items():
        if not isinstance(data.get(name), kind):
            raise DataError(f"{path}: {name} is missing or is not a {kind.__name__}")
    if not isinstance(data["model"].get("name"), str) or not isinstance(data["model"].get("sha256"), dict):
        raise DataError(f"{path}: model has no name or no sha256 of its files")
    return data


def check_model(score: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """Raise CheckpointError, naming the files that differ, for a model that is not the scored one."""
    was, now = score["model"]["sha256"], model["sha256"]
    wrong = sorted(file for file in was.keys() | now.keys() if was.get(file) != now.get(file))
    if wrong:
        raise CheckpointError(
            f"{model['name']} is not the model that was scored: {', '.join(wrong)} differ; "
            "give the folder of that model before --reproduce"
        )


def differences(was: Any, now: Any) -> list[Difference]:
    """The figures that differ between a result from a file and a new one, compared to the last bit."""
    before, after = dict(_leaves(was)), dict(_leaves(_as_json(now)))
    return [
        Difference(key, before.get(key), after.get(key))
        for key in dict.fromkeys((*before, *after))
        if key not in before or key not in after or before[key] != after[key]
    ]


def _leaves(value: Any) -> Iterator[tuple[str, Any]]:
    """Values with dotted names, in order; of any depth, since the file is not trusted."""
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict | list) and value:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += reversed([(f"{name}.{key}".lstrip("."), item) for key, item in items])
        else:
            yield name, value


def _as_json(data: Any) -> Any:
    """The data as it is read back: tuples are lists, and keys are strings."""
    return json.loads(json.dumps(data))
