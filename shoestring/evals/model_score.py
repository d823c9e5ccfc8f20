"""The scores of a model on several tasks, flat: one row of a table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shoestring import config as configs
from shoestring.device import Runtime
from shoestring.engine.llm import LLM
from shoestring.engine.load import load_engine
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError
from shoestring.evals.passk import TaskEvalConfig, choose_problems, evaluate_task
from shoestring.model.cost import parameters
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.tasks.load import load_task
from shoestring.tokenizer.chat.template import Template

Settings = Mapping[str, Any]
"""Fields of TaskEvalConfig."""
ENGINE = EngineSettings(max_num_seqs=256, speculation="off")
"""Many short answers at once: a draft would cost more than it saves."""


def score_model(
    folder: Path, tasks: Mapping[str, Settings], runtime: Runtime, *, answers: Path | None = None
) -> dict[str, Any]:
    """The size of the model in `folder`, its score on the first task, and pass@1 on the others.

    Every answer with its reward goes to answers-<task>.jsonl in the folder `answers`, by default beside that
    of the model. Raises ConfigError for settings that are wrong, and what `evaluate_task` raises.
    """
    if any(settings.get("reward_model") for settings in tasks.values()):
        raise ConfigError("score.tasks takes no reward_model; `shoestring eval` does")
    checkpoint = Checkpoint.open(folder)
    llm = LLM.of(load_engine(checkpoint, runtime, settings=ENGINE), checkpoint)
    answers = answers or folder.parent
    scores = {
        name: score_task(llm, name, settings, transcripts=answers / f"answers-{Path(name).name}.jsonl")
        for name, settings in tasks.items()
    }
    first = next(iter(scores.values()), {})
    others = {name: score["pass_at_1"] for name, score in list(scores.items())[1:]}
    return {"parameters": parameters(llm.engine.model.config).total, **first, "other_tasks": others}


def score_task(
    llm: LLM,
    name: str,
    settings: Settings,
    *,
    template: Template | None = None,
    transcripts: Path | None = None,
) -> dict[str, Any]:
    """The model's score on one task; `template` takes the place of the model's own."""
    config = configs.build(TaskEvalConfig, dict(settings), where=f"score.tasks.{name}")
    task = load_task(name, config.options)
    if template is None and not config.prompt.format:
        template = llm.template
    examples = choose_problems(task, config)
    score = evaluate_task(llm, task, examples, config, template=template, transcripts=transcripts).to_json()
    score |= {f"pass_at_{k}": value for k, value in score.pop("pass_at_k").items()}
    return score | {f"maj_at_{k}": value for k, value in score["maj_at_k"].items()}
