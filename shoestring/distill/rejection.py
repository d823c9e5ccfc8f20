"""Rejection sampling as a stage of a recipe: a model's verified answers, mixed with general conversations."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoestring.device import Runtime
from shoestring.distill.collect import CollectConfig, collect, problems_of
from shoestring.distill.distill import folder_sha256
from shoestring.distill.mix import mix
from shoestring.distill.teachers import SETTINGS, LocalTeacher
from shoestring.engine.llm import LLM
from shoestring.engine.load import load_engine
from shoestring.errors import DataError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.tasks.load import load_task
from shoestring.tasks.verify import Verifier

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class CollectStage:
    """Verified answers of an earlier stage's model, mixed with general conversations."""

    teacher: str
    """The model's folder."""
    tasks: dict[str, dict[str, Any]]
    """Sources of problems: task name -> its options."""
    problems: int = 1000
    """Problems of each task."""
    form: str = ""
    """Plain text with {question} in it instead of the teacher's chat template, as in its own stage."""
    general: tuple[str, ...] = ()
    """jsonl files of other conversations."""
    general_ratio: float = 3.0
    """Verified conversations for each general one (R1: 600k to 200k)."""
    collect: CollectConfig = field(default_factory=CollectConfig)


def sample_verified(
    config: CollectStage, runtime: Runtime, folder: Path, *, say: Callable[[str], None] = log.info
) -> dict[str, Any]:
    """Write conversations.jsonl and, with general ones, mixed.jsonl into `folder`; returns the figures.

    A folder that is there already is continued. Raises DataError when no answer is worth learning.
    """
    tasks = {name: load_task(name, options) for name, options in config.tasks.items()}
    checkpoint = Checkpoint.open(config.teacher)
    name = f"{checkpoint.folder.parent.name} (sha256 {folder_sha256(checkpoint.folder)[:16]})"
    llm = LLM.of(load_engine(checkpoint, runtime, settings=SETTINGS), checkpoint)
    teacher = LocalTeacher(
        llm,
        name,
        params=config.collect.params(),
        thinking=True,
        form=config.form,
        overlong=config.collect.overlong,
    )
    problems = problems_of(tasks, config.problems, config.collect.seed)
    with Verifier(tasks) as verifier:
        collection = collect(
            teacher, problems, verifier, config.collect, folder, resume=folder.exists(), say=say
        )
    if not collection.num_conversations:
        raise DataError(f"no answer of {config.teacher} passed the filters: {collection.rejections}")
    general = [Path(path) for path in config.general]
    counts = mix([collection.path], general, folder / "mixed.jsonl", ratio=config.general_ratio)
    return {**collection.figures(), "mixed": json.dumps(counts)}
