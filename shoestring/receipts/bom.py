"""The bill of materials of a run in CycloneDX 1.6: its model with its card, its data, code and libraries.

https://cyclonedx.org/docs/1.6/json/, section modelCard. The library of CycloneDX for Python has no model
cards, so the document is made here, and the tests validate it by the library's own schema.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

from shoestring.receipts.read import StageReceipt

SPEC = "1.6"
LIBRARIES = ("torch", "numpy", "tokenizers", "safetensors")
MAX_DATA_FILES = 10_000


def bill_of_materials(name: str, stages: Sequence[StageReceipt]) -> dict[str, Any]:
    """The document of a run: the model of its last stage, and what all of its stages were made from."""
    models = [_model(name, stage) for stage in stages]
    components = models[:-1]
    for stage in stages:
        components += _data(stage)
    components += _software(stages[-1].content)
    references = [component["bom-ref"] for component in components]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": SPEC,
        "serialNumber": f"urn:uuid:{uuid.uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "component": models[-1],
            "tools": {"components": [{"type": "application", "name": "shoestring"}]},
        },
        "components": _unique(components),
        "dependencies": [
            {"ref": models[-1]["bom-ref"], "dependsOn": sorted(set(references))},
        ],
    }


def _model(name: str, stage: StageReceipt) -> dict[str, Any]:
    content = stage.content
    title = f"{name}/{stage.stage}" if stage.stage else name
    times = f"from {content.get('start', '?')} to {content.get('end', '?')}"
    outputs = {file: sha for file, sha in _table(content, "outputs").items() if file.startswith("model/")}
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{title}",
        "name": title,
        "version": str(_table(content, "code").get("version", "0")),
        "description": f"Trained by shoestring {times}.",
        "components": [
            {
                "type": "file",
                "bom-ref": f"file:{title}/{file}",
                "name": file,
                "hashes": [{"alg": "SHA-256", "content": sha}],
            }
            for file, sha in outputs.items()
        ],
        "modelCard": {
            "bom-ref": f"card:{title}",
            "modelParameters": {
                "approach": {"type": _approach(content)},
                "task": "text-generation",
                "architectureFamily": "transformer",
                "datasets": [{"ref": component["bom-ref"]} for component in _data(stage)],
            },
            "considerations": {"environmentalConsiderations": _environment(content)},
        },
        "properties": [
            {"name": f"shoestring:{key}", "value": str(value)}
            for key, value in (
                ("train_flops", content["train_flops"]),
                ("tokens", content.get("tokens")),
                ("seconds", content.get("seconds")),
                ("seed", content.get("seed")),
                ("start", _table(content, "data").get("start")),
            )
            if value is not None
        ],
    }


def _environment(content: Mapping[str, Any]) -> dict[str, Any]:
    """The energy of the training, with its carbon as far as it is known."""
    energy, world = _table(content, "energy"), _table(content, "footprint")
    joules = energy.get("joules")
    if not isinstance(joules, int | float):
        return {"properties": [{"name": "energy", "value": str(energy.get("detail", "unavailable"))}]}
    consumption: dict[str, Any] = {
        "activity": "training",
        "energyProviders": [
            {
                "description": str(energy.get("detail", "")),
                "organization": {"name": "unknown"},
                "energySource": "unknown",
                "energyProvided": {"value": joules / 3.6e6, "unit": "kWh"},
            }
        ],
        "activityEnergyCost": {"value": joules / 3.6e6, "unit": "kWh"},
    }
    if world:
        consumption["co2CostEquivalent"] = {"value": world["co2_kg"] / 1000, "unit": "tCO2eq"}
        consumption["properties"] = [
            {"name": "water_l", "value": str(world["water_l"])},
            {"name": "assumptions", "value": str(_table(world, "assumptions").get("source", ""))},
        ]
    return {"energyConsumptions": [consumption]}


def _data(stage: StageReceipt) -> list[dict[str, Any]]:
    """The files that were learned from, one component each, or the tasks of reinforcement."""
    table = _table(stage.content, "data")
    rows = []
    for file in list(table.get("files", ()))[:MAX_DATA_FILES]:
        license = file.get("license")
        rows.append(
            {
                "type": "data",
                "bom-ref": f"data:{file['path']}:{str(file.get('sha256', ''))[:16]}",
                "name": str(file["path"]),
                "data": [{"type": "dataset"}],
                **({"hashes": [{"alg": "SHA-256", "content": file["sha256"]}]} if "sha256" in file else {}),
                **({"licenses": [{"license": {"name": license}}]} if license else {}),
            }
        )
    for task in table.get("tasks", ()):
        task_name = str(task.get("name"))
        rows.append(
            {
                "type": "data",
                "bom-ref": f"task:{task_name}",
                "name": task_name,
                "data": [{"type": "dataset", "description": "problems with a program that checks answers"}],
            }
        )
    return rows


def _software(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """This program, as it was then, and the libraries that compute."""
    code = _table(content, "code")
    rows: list[dict[str, Any]] = [
        {
            "type": "application",
            "bom-ref": "shoestring",
            "name": "shoestring-llm",
            "version": str(code.get("version", "")),
            "hashes": [{"alg": "SHA-256", "content": code["sha256"]}] if "sha256" in code else [],
            "licenses": [{"license": {"id": "MIT"}}],
        }
    ]
    versions = {"torch": _table(content, "machine").get("torch")}
    for library in LIBRARIES:
        version = str(versions.get(library) or metadata.version(library))
        rows.append(
            {
                "type": "library",
                "bom-ref": f"pkg:pypi/{library}@{version}",
                "name": library,
                "version": version,
                "purl": f"pkg:pypi/{library}@{version}",
            }
        )
    return rows


def _approach(content: Mapping[str, Any]) -> str:
    """CycloneDX's word for the way of learning."""
    data = _table(content, "data")
    if "tasks" in data or "questions" in data:
        return "reinforcement-learning"
    return "supervised" if "start" in data else "self-supervised"


def _unique(components: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each component once: stages share data."""
    return list({component["bom-ref"]: component for component in components}.values())


def _table(content: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = content.get(name)
    return value if isinstance(value, dict) else {}
