"""The stages of a run and their state, as its folder shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from shoestring.serve.training.folder import has_file, number, read_json, read_toml
from shoestring.train.runs.lock import holder

State = Literal["waiting", "running", "scoring", "stopped", "finished"]
KINDS = ("corpus", "sft", "grpo", "collect", "distill", "prefer", "reward_model")
MAX_STAGES = 100
SCORES = ("pass_at_1", "maj_at_8", "greedy", "mean_thinking_tokens", "seconds")


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of a recipe; a run of one training is one stage, whose name is empty."""

    name: str
    title: str = ""
    kind: str = ""
    state: State
    total: float | None = None
    """The length of its training in steps or tokens, where the recipe says it."""
    scores: Mapping[str, float]
    """Figures of its model; empty as long as it has none."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders between the run's and that of the stage's metrics.jsonl."""
        return (*_parts(self.name), "student") if self.kind == "distill" else _parts(self.name)

    @property
    def model_parts(self) -> tuple[str, ...]:
        """The folders between the run's and that of its model."""
        return (*self.parts, "model")


def stages_of(folder: Path) -> list[Stage]:
    """The stages of a run, in their order."""
    config, is_running = read_toml(folder, "config.toml"), holder(folder) is not None
    entries = config.get("stages")
    if not isinstance(entries, list):
        return [_single(folder, config, is_running)]
    stages: list[Stage] = []
    last = _last_name(folder, config)
    for entry in entries[:MAX_STAGES]:
        if isinstance(entry, dict) and is_name(entry.get("name")):
            is_open = not stages or stages[-1].state == "finished"
            stages.append(_stage(folder, entry, is_running=is_running, is_next=is_open))
            if entry["name"] == last:
                break
    return stages


def _last_name(folder: Path, config: Mapping[str, Any]) -> str:
    """The stage after which the run was told to end; empty for the last one of the recipe."""
    until = read_json(folder, "process.json").get("until")
    report = read_json(folder, "report.json").get("stages")
    if isinstance(until, str):
        return until
    rows = [row for row in report if isinstance(row, dict)] if isinstance(report, list) else []
    return str(rows[-1].get("name", "")) if rows else ""


def _single(folder: Path, config: Mapping[str, Any], is_running: bool) -> Stage:
    is_finished = has_file(folder, "report.json")
    state: State = "running" if is_running else "finished" if is_finished else "stopped"
    kinds = {"rl": "grpo", "distill": "distill", "reward-model": "reward_model", "prefer": "prefer"}
    kind = kinds.get(verb_of(config) or "", "sft")
    return Stage(name="", kind=kind, state=state, total=_total(config), scores={})


def _stage(folder: Path, entry: Mapping[str, Any], *, is_running: bool, is_next: bool) -> Stage:
    name = entry["name"]
    kind = next((kind for kind in KINDS if isinstance(entry.get(kind), dict)), "")
    row = read_json(folder, name, "stage.json")
    if row:
        state: State = "finished"
    elif not is_next:
        state = "waiting"
    elif is_running:
        parts = (name, "student") if kind == "distill" else (name,)
        state = "scoring" if has_file(folder, *parts, "report.json") else "running"
    else:
        state = "stopped" if has_file(folder, name, "config.toml") else "waiting"
    values = {key: number(row.get(key)) for key in SCORES}
    scores = {key: value for key, value in values.items() if value is not None}
    total = _total(entry[kind]) if kind else None
    return Stage(
        name=name, title=str(entry.get("title", ""))[:200], kind=kind, state=state, total=total, scores=scores
    )


def verb_of(config: Mapping[str, Any]) -> str | None:
    """The command that runs a recipe; None for one of no command."""
    if isinstance(config.get("stages"), list) or "num_generations" in config:
        return "rl"
    if "teacher" in config:
        return "distill"
    if "center_rewards_coefficient" in config:
        return "reward-model"
    if isinstance(config.get("loss"), dict):
        return "prefer"
    if isinstance(config.get("data"), list):
        return "sft"
    return "pretrain" if isinstance(config.get("data"), dict) else None


def _total(settings: Mapping[str, Any]) -> float | None:
    """Steps of a training, or its tokens."""
    for key in ("steps", "total_tokens"):
        value = settings.get(key)
        if type(value) is int and value > 0:
            return float(value)
    return None


def _parts(name: str) -> tuple[str, ...]:
    return (name,) if name else ()


def is_name(value: Any) -> bool:
    """Return whether a value is a name that a stage may have."""
    return (
        isinstance(value, str)
        and 0 < len(value) <= 64
        and value not in (".", "..")
        and all(character.isascii() and (character.isalnum() or character in "._-") for character in value)
    )
