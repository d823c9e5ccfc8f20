"""Runs a recipe's stages one after the other, scores each one's model, and reports them in one table."""

import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring import config as configs
from shoestring.data.scratchwork import write
from shoestring.device import Runtime
from shoestring.distill.collect import CONVERSATIONS, collect, problems_of
from shoestring.distill.distill import DistillConfig, distill, folder_sha256
from shoestring.distill.mix import mix
from shoestring.distill.teachers import SETTINGS, LocalTeacher
from shoestring.durable import write_atomic
from shoestring.engine.llm import LLM
from shoestring.engine.load import load_engine
from shoestring.errors import ConfigError, DataError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.rl.grpo import Evaluate, grpo
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.stages import CollectStage, CorpusStage, RecipeConfig, Stage, located
from shoestring.tasks.load import load_task
from shoestring.tasks.verify import Verifier
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.train.sft import sft
from shoestring.train.sft_recipe import SFTConfig

log = logging.getLogger(__name__)

Score = Callable[[Path, Stage], dict[str, Any]]
"""The figures of the model that a stage made; given by whoever calls, since `evals` stands beside `rl`."""


@dataclass(frozen=True, kw_only=True)
class Watch:
    """How whoever calls looks on."""

    score: Score | None = None
    on_eval: Evaluate | None = None
    """For reinforcement; see rl/grpo.py."""
    say: Callable[[str], None] = log.info


TAGS = re.compile("</?think>")
DONE = "stage.json"
"""In a stage's folder once it is finished: its row of the report."""


def run_recipe(
    config: RecipeConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool = False,
    until: str = "",
    quiet: bool = False,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Run the stages in folder `out`, up to and with `until`; the report, also left there as report.json.

    Each stage works in `out/<name>`. `resume` keeps the finished ones and goes on inside the one that was
    stopped. Raises Stopped (saved; resume later), ConfigError for settings that are wrong, before anything is
    computed, and whatever a stage raises.
    """
    watch = watch or Watch()
    if runtime.world_size > 1:
        raise ConfigError(
            f"WORLD_SIZE = {runtime.world_size}: a recipe of stages runs in one process; start just one, or "
            "give torchrun the recipe of one reinforcement run"
        )
    names = [stage.name for stage in config.stages]
    if until and until not in names:
        raise ConfigError(f"no stage {until!r}; the recipe has {', '.join(names)}")
    if not resume and (out / "config.toml").exists():
        raise ConfigError(f"{out} already holds a run; --resume continues it, another --out starts anew")
    settings = [settings_of(stage, out, config.seed) for stage in config.stages]
    write_atomic(out / "config.toml", configs.dumps(config))
    wanted = config.stages[: names.index(until) + 1] if until else config.stages
    rows = []
    for number, stage in enumerate(wanted, start=1):
        done = out / stage.name / DONE
        if not done.is_file():
            watch.say(f"stage {number} of {len(wanted)}: {stage.name} ({stage.title or stage.kind})")
            row = _run_stage(stage, settings[number - 1], runtime, out / stage.name, quiet=quiet, watch=watch)
            row |= _scored(stage, out, watch)
            write_atomic(done, json.dumps(row, indent=2) + "\n")
        rows.append(json.loads(done.read_text(encoding="utf-8")))
    report = {"title": config.title, "stages": rows}
    write_atomic(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


Settings = SFTConfig | GRPOConfig | CorpusStage | CollectStage | DistillConfig


def settings_of(stage: Stage, out: Path, seed: int) -> Settings:
    """The stage's settings with its paths in `out`; ConfigError naming the stage and the field."""
    classes: dict[str, type[Any]] = {
        "corpus": CorpusStage,
        "sft": SFTConfig,
        "grpo": GRPOConfig,
        "collect": CollectStage,
        "distill": DistillConfig,
    }
    data = located(stage.settings, str(out))
    if stage.kind in ("collect", "distill"):
        data["collect"] = {"seed": seed, **data.get("collect", {})}
    else:
        data = {"seed": seed, **data}
    built: Any = configs.build(classes[stage.kind], data, where=f"stage {stage.name}")
    return built


def model_folder(stage: Stage, out: Path) -> Path | None:
    """Where the stage leaves its model; None for one that makes none."""
    if stage.kind in ("corpus", "collect"):
        return None
    return out / stage.name / ("student/model" if stage.kind == "distill" else "model")


def _run_stage(
    stage: Stage,
    config: Settings,
    runtime: Runtime,
    folder: Path,
    *,
    quiet: bool,
    watch: Watch,
) -> dict[str, Any]:
    """Run one stage, or go on inside it; the first figures of its row."""
    start = time.monotonic()
    begun = (folder / "config.toml").is_file()
    figures: dict[str, Any]
    if isinstance(config, CorpusStage):
        figures = write_corpus(config, folder)
    elif isinstance(config, CollectStage):
        figures = _collect(config, runtime, folder, watch.say)
    elif isinstance(config, SFTConfig):
        figures = sft(config, runtime, folder, resume=begun, quiet=quiet)
    elif isinstance(config, GRPOConfig):
        figures = grpo(config, runtime, folder, resume=begun, quiet=quiet, on_eval=watch.on_eval)
    else:
        figures = distill(config, runtime, folder, resume=begun, quiet=quiet, say=watch.say)
    training = figures.get("training", figures)
    is_training = isinstance(config, SFTConfig | GRPOConfig)  # these count what was before a resume, too
    return {
        "name": stage.name,
        "title": stage.title,
        "kind": stage.kind,
        "seconds": figures["seconds"] if is_training else time.monotonic() - start,
        "train_flops": training.get("train_flops", 0.0),
        "tokens": training.get("tokens", 0),
        "money": training.get("money"),
        "figures": {name: value for name, value in figures.items() if not isinstance(value, dict)},
    }


def write_corpus(config: CorpusStage, folder: Path) -> dict[str, Any]:
    """Conversations and, if wanted, a tokenizer trained on their words and our chat template."""
    text = write(config.mix, config.seed, config.conversations)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / CONVERSATIONS, text)
    figures = {"conversations": config.conversations, "bytes": len(text.encode())}
    if config.vocab_size:
        lines = (json.loads(line)["messages"] for line in text.splitlines())
        texts = (part for talk in lines for message in talk for part in TAGS.split(message["content"]))
        tokenizer = Tokenizer.train(texts, config.vocab_size)
        tokenizer.save(folder / "tokenizer")
        DeepSeekTemplate().save(folder / "tokenizer")
        figures["vocabulary"] = tokenizer.vocab_size
    return figures


def _collect(
    config: CollectStage, runtime: Runtime, folder: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Verified answers of the teacher, with general conversations mixed in: folder/mixed.jsonl."""
    tasks = {name: load_task(name, options) for name, options in config.tasks.items()}
    teacher = Checkpoint.open(config.teacher)
    name = f"{teacher.folder.parent.name} (sha256 {folder_sha256(teacher.folder)[:16]})"
    llm = LLM.of(load_engine(teacher, runtime, settings=SETTINGS), teacher)
    with Verifier(tasks) as verifier:
        asked = LocalTeacher(llm, name, params=config.collect.params(), thinking=True, form=config.form)
        problems = problems_of(tasks, config.problems, config.collect.seed)
        begun = folder.exists()
        result = collect(asked, problems, verifier, config.collect, folder, resume=begun, say=say)
    if not result.kept:
        raise DataError(f"{config.teacher} gave no answer that could be kept: {result.dropped}")
    general = [Path(path) for path in config.general]
    mixed = mix([result.path], general, folder / "mixed.jsonl", ratio=config.general_ratio)
    return {**result.figures(), "mixed": json.dumps(mixed)}


def _scored(stage: Stage, out: Path, watch: Watch) -> dict[str, Any]:
    """The figures of the stage's model."""
    folder = model_folder(stage, out)
    if folder is None or watch.score is None:
        return {}
    watch.say(f"scoring {stage.name}")
    start = time.monotonic()
    return {**watch.score(folder, stage), "score_s": time.monotonic() - start}
