"""A recipe of stages, run one after the other; each stage's model is scored, and one report has them all."""

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring import config as configs
from shoestring.device import Runtime
from shoestring.distill.distill import DistillConfig, distill
from shoestring.distill.rejection import CollectStage, sample_verified
from shoestring.durable import write_atomic
from shoestring.engine.llm import LLM
from shoestring.errors import ConfigError
from shoestring.evals.model_score import score_model, score_task
from shoestring.model.hf.hub import resolve
from shoestring.preferences.prefer import prefer
from shoestring.preferences.recipe import PreferenceConfig, RewardModelConfig
from shoestring.preferences.reward_model import train_reward_model
from shoestring.rl.corpus import CorpusStage, write_corpus
from shoestring.rl.grpo import grpo
from shoestring.rl.pictures import write_report
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.run import Run
from shoestring.rl.stages import RecipeConfig, Stage, located
from shoestring.train.runs.lock import run_lock
from shoestring.train.sft import sft
from shoestring.train.sft_recipe import SFTConfig

log = logging.getLogger(__name__)

OneRun = SFTConfig | GRPOConfig | PreferenceConfig | RewardModelConfig
"""Settings of one run, whose report counts its time, also from before a resume."""
Settings = OneRun | CorpusStage | CollectStage | DistillConfig
ROW = "stage.json"
"""A finished stage's row of the report, in its folder."""
BASE_ROW = "base.json"
"""The row of the model that the recipe begins with, in the run's folder."""
LIVE_PROBLEMS = 64
"""Problems of a score during reinforcement."""


def run_recipe(
    config: RecipeConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool = False,
    until: str = "",
    quiet: bool = False,
    say: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Run the stages in folder `out` up to and with `until`; returns the report.

    Each stage works in `out/<name>`; report.json and report.html are in `out`. `resume` skips the finished
    stages and continues the one that was stopped. Raises Stopped (saved; resume later), ConfigError for wrong
    settings, before anything is computed, and what a stage raises.
    """
    if runtime.world_size > 1:
        raise ConfigError(
            f"WORLD_SIZE = {runtime.world_size}: a recipe of stages runs in one process; start just one, or "
            "give torchrun the recipe of one reinforcement run"
        )
    names = [stage.name for stage in config.stages]
    if until and until not in names:
        raise ConfigError(f"no stage {until!r}; the recipe has {', '.join(names)}")
    settings = {stage.name: settings_of(stage, out, config.seed) for stage in config.stages}
    if config.score.base:
        resolve(config.score.base)  # raises before there is a folder
    stages = config.stages[: names.index(until) + 1] if until else config.stages
    with run_lock(out, until=until):
        if not resume and (out / "config.toml").exists():
            raise ConfigError(f"{out} already holds a run; --resume continues it, another --out starts anew")
        write_atomic(out / "config.toml", configs.dumps(config))
        pipeline = Pipeline(config=config, runtime=runtime, out=out, quiet=quiet, say=say)
        about = {"note": config.note} if config.note else {}
        about |= {"tags": ", ".join(config.tags)} if config.tags else {}
        report = {"title": config.title, **about, "stages": pipeline.rows(stages, settings)}
        write_atomic(out / "report.json", json.dumps(report, indent=2) + "\n")
        write_report(report, out)
    return report


def settings_of(stage: Stage, out: Path, seed: int) -> Settings:
    """The stage's settings with its paths in `out`; ConfigError naming the stage and the field."""
    classes: dict[str, type[Any]] = {
        "corpus": CorpusStage,
        "sft": SFTConfig,
        "grpo": GRPOConfig,
        "collect": CollectStage,
        "distill": DistillConfig,
        "prefer": PreferenceConfig,
        "reward_model": RewardModelConfig,
    }
    data = located(stage.settings, str(out))
    if stage.kind in ("collect", "distill"):
        data["collect"] = {"seed": seed, **data.get("collect", {})}
    else:
        data = {"seed": seed, **data}
    settings: Settings = configs.build(classes[stage.kind], data, where=f"stage {stage.name}")
    return settings


def is_same_recipe(one: RecipeConfig | GRPOConfig, other: RecipeConfig | GRPOConfig) -> bool:
    """Return whether two recipes have the same settings, whichever of their names are old ones."""
    if not (isinstance(one, RecipeConfig) and isinstance(other, RecipeConfig)):
        return one == other
    return one == other or _built(one) == _built(other)


def _built(config: RecipeConfig) -> tuple[Any, ...]:
    stages = [
        (stage.name, stage.title, stage.prompt, settings_of(stage, Path(), config.seed))
        for stage in config.stages
    ]
    return config.title, config.seed, config.score, stages


def model_folder(stage: Stage, out: Path) -> Path | None:
    """The folder of the stage's model; None for a stage that makes none that answers."""
    if stage.kind in ("corpus", "collect", "reward_model"):
        return None
    return out / stage.name / ("student/model" if stage.kind == "distill" else "model")


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A recipe's run in its folder."""

    config: RecipeConfig
    runtime: Runtime
    out: Path
    quiet: bool
    say: Callable[[str], None]
    """Shows a line of progress."""

    def rows(self, stages: Sequence[Stage], settings: Mapping[str, Settings]) -> list[dict[str, Any]]:
        """The rows of the report; a stage without one is run and scored."""
        rows = [self.base_row()] if self.config.score.base else []
        for number, stage in enumerate(stages, start=1):
            path = self.out / stage.name / ROW
            if not path.is_file():
                self.say(f"stage {number} of {len(stages)}: {stage.name} ({stage.title or stage.kind})")
                row = self.run(stage, settings[stage.name]) | self.score(stage)
                write_atomic(path, json.dumps(row, indent=2) + "\n")
            rows.append(json.loads(path.read_text(encoding="utf-8")))
        return rows

    def base_row(self) -> dict[str, Any]:
        """The row of `score.base` in the report: its scores, taken once."""
        path, name = self.out / BASE_ROW, self.config.score.base
        if not path.is_file():
            self.say(f"scoring {name}")
            scores = score_model(resolve(name), self.config.score.tasks, self.runtime, answers=self.out)
            new = {"name": Path(name).name, "title": "before the first stage", "kind": "base", "seconds": 0.0}
            write_atomic(path, json.dumps(new | scores, indent=2) + "\n")
        row: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return row

    def run(self, stage: Stage, settings: Settings) -> dict[str, Any]:
        """Run a stage, or continue it; returns its row of the report without scores."""
        start = time.monotonic()
        figures = self._figures(settings, self.out / stage.name)
        training = figures.get("training", figures)
        counts_time = isinstance(settings, OneRun)
        return {
            "name": stage.name,
            "title": stage.title,
            "kind": stage.kind,
            "seconds": figures["seconds"] if counts_time else time.monotonic() - start,
            "train_flops": training.get("train_flops", 0.0),
            "tokens": training.get("tokens", 0),
            "money": training.get("money"),
            "figures": {name: value for name, value in figures.items() if not isinstance(value, dict)},
        }

    def score(self, stage: Stage) -> dict[str, Any]:
        """Scores of the stage's model by name; none if it makes none.

        The stage's prompt, if it has one, takes the place of the tasks' own.
        """
        folder, tasks = model_folder(stage, self.out), self.config.score.tasks
        if folder is None:
            return {}
        self.say(f"scoring {stage.name}")
        start = time.monotonic()
        if stage.prompt:
            tasks = {name: {**settings, "prompt": stage.prompt} for name, settings in tasks.items()}
        return {**score_model(folder, tasks, self.runtime), "score_s": time.monotonic() - start}

    def _figures(self, settings: Settings, folder: Path) -> dict[str, Any]:
        runtime, quiet = self.runtime, self.quiet
        resume = (folder / "config.toml").is_file()
        if isinstance(settings, CorpusStage):
            return write_corpus(settings, folder)
        if isinstance(settings, CollectStage):
            return sample_verified(settings, runtime, folder, say=self.say)
        if isinstance(settings, PreferenceConfig):
            return prefer(settings, runtime, folder, resume=resume, quiet=quiet)
        if isinstance(settings, RewardModelConfig):
            return train_reward_model(settings, runtime, folder, resume=resume, quiet=quiet)
        if isinstance(settings, SFTConfig):
            return sft(settings, runtime, folder, resume=resume, quiet=quiet)
        if isinstance(settings, GRPOConfig):
            on_eval = self._score_policy if self.config.score.tasks else None
            return grpo(settings, runtime, folder, resume=resume, quiet=quiet, on_eval=on_eval)
        return distill(settings, runtime, folder, resume=resume, quiet=quiet, say=self.say)

    def _score_policy(self, run: Run) -> dict[str, Any]:
        """Figures of the policy while it learns: pass@1 on a few held-out problems of the first task."""
        name, settings = next(iter(self.config.score.tasks.items()))
        quick = {**settings, "problems": LIVE_PROBLEMS, "samples": 2, "k": [1], "greedy": False}
        score = score_task(LLM.of(run.engine), name, quick, template=run.template)
        return {"eval_accuracy": score["pass_at_1"], "eval_thinking_tokens": score["mean_thinking_tokens"]}
