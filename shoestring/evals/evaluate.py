"""Evaluate a model on text, on a task or with lm-evaluation-harness, and repeat a score from its manifest."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from shoestring.config import build
from shoestring.data.corpus import DataConfig
from shoestring.data.dataset import prepare
from shoestring.device import Runtime
from shoestring.durable import cache_folder
from shoestring.engine.llm import LLM
from shoestring.engine.load import default_sampling, load_engine, load_transformer
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ThresholdError
from shoestring.evals.harness import HarnessConfig, evaluate_harness
from shoestring.evals.manifest import (
    check_model,
    describe,
    differences,
    identify,
    problems_sha256,
)
from shoestring.evals.passk import TaskEvalConfig, choose_problems, evaluate_task, open_scorer
from shoestring.evals.perplexity import TextEvalConfig, compare_with_references
from shoestring.evals.token_ids import score_ids
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.packed.quantize import Progress
from shoestring.tasks.load import load_task

TEXT = "text"
HARNESS = "lm_eval:"
MIN_CONTEXT = 8192
"""Context of the engine at least, where the model's own is as long."""
PROMPT_TOKENS = 4096
"""Context for the question, beside the answer's `max_tokens`."""
MAX_NUM_SEQS = 64
"""Sequences in one engine step; on a CPU this changes speed only."""

EvalConfig = TextEvalConfig | TaskEvalConfig | HarnessConfig


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A model to evaluate, and where it runs."""

    name: str
    """The name or path that the manifest states, from which a repetition finds the model."""
    checkpoint: Checkpoint
    runtime: Runtime
    progress: Progress | None = None
    """Called with the bytes of weights that are loaded, and with all of them."""

    def identity(self) -> dict[str, Any]:
        """The model's part of a manifest; reads all of its files."""
        return identify(self.name, self.checkpoint.folder, *self.checkpoint.adapters)

    def open_llm(self, max_tokens: int) -> LLM:
        """The model in an engine whose context holds a prompt and `max_tokens`, if the model's own does."""
        longest = self.checkpoint.config.max_position_embeddings
        context = min(max(MIN_CONTEXT, max_tokens + PROMPT_TOKENS), longest)
        settings = EngineSettings(max_model_len=context, max_num_seqs=MAX_NUM_SEQS)
        engine = load_engine(self.checkpoint, self.runtime, settings=settings, progress=self.progress)
        return LLM.of(engine, self.checkpoint, sampling=default_sampling(self.checkpoint), seed=None)


class Repetition(NamedTuple):
    """A score that was taken again."""

    score: dict[str, Any]
    """The new manifest; `differs` lists the figures that are not as they were."""
    changes: list[str]
    """Changes of the machine and of versions, which can explain other figures."""


def build_config(name: str, data: Mapping[str, Any], where: str) -> EvalConfig:
    """The settings of a score by its name: `text`, a task, or `lm_eval:` and tasks of the harness.

    Raises ConfigError that names `where` for a field or value that is wrong.
    """
    if name == TEXT:
        return build(TextEvalConfig, dict(data), where)
    if name.startswith(HARNESS):
        return build(HarnessConfig, dict(data), where)
    return build(TaskEvalConfig, dict(data), where)


def evaluate(
    name: str,
    config: EvalConfig,
    subject: Subject,
    *,
    transcripts: Path | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """Take a score and return its manifest with the `result`.

    Args:
        name: as in `build_config`, which makes `config` for it.
        transcripts: a .jsonl file for a task's answers with their rewards.
        show: show progress on a terminal.
    """
    runtime = {
        "device": subject.runtime.device.type,
        "dtype": str(subject.runtime.compute_dtype).removeprefix("torch."),
    }
    manifest = describe(name, model=subject.identity(), config=config, runtime=runtime)
    if isinstance(config, TextEvalConfig):
        result = _score_text(config, subject)
    elif isinstance(config, HarnessConfig):
        tasks = name.removeprefix(HARNESS).split(",")
        result = evaluate_harness(subject.open_llm(config.max_tokens), tasks, config)
    else:
        result = _score_task(name, config, subject, transcripts=transcripts, show=show)
    return {**manifest, "result": result}


def repeat(manifest: Mapping[str, Any], subject: Subject, *, where: str, show: bool = False) -> Repetition:
    """Take the score of a manifest again; raises CheckpointError for a model that is not the scored one.

    `where` is the manifest's file, for error messages.
    """
    config = build_config(manifest["name"], manifest["config"], where)
    check_model(manifest, subject.identity())
    score = evaluate(manifest["name"], config, subject, show=show)
    changes = [
        f"{part} {difference}"
        for part in ("runtime", "versions")
        for difference in differences(manifest[part], score[part])
    ]
    differs = [str(difference) for difference in differences(manifest["result"], score["result"])]
    return Repetition({**score, "differs": differs}, changes)


def check_thresholds(score: Mapping[str, Any]) -> None:
    """Raise ThresholdError for a repeated score that differs, or a threshold that is not met."""
    if score.get("differs"):
        rest = len(score["differs"]) - 1
        raise ThresholdError(
            f"the score is not the same: {score['differs'][0]}" + (f", and {rest} more" if rest else "")
        )
    above, below, result = score["config"].get("above"), score["config"].get("below"), score["result"]
    if above is not None and not result["pass_at_1"] >= above:
        raise ThresholdError(f"pass@1 of {result['pass_at_1']:.4f} does not reach {above}; train longer")
    if below is not None and not result["bits_per_byte"] < below:
        raise ThresholdError(
            f"{result['bits_per_byte']:.4f} bits per byte are not below {below}; train longer"
        )


def _score_text(config: TextEvalConfig, subject: Subject) -> dict[str, Any]:
    """Bits per byte on the sources or what pretraining holds out of them; nats per token of token ids."""
    if not subject.checkpoint.has_tokenizer:
        return score_ids(load_transformer(subject.checkpoint, subject.runtime), config)
    tokenizer = subject.checkpoint.tokenizer
    model = load_transformer(subject.checkpoint, subject.runtime)
    tokenizer.check_fits(model.config.vocab_size)
    dataset = prepare(DataConfig(sources=config.sources, fim_rate=0.0), tokenizer, cache_folder("data"))
    return compare_with_references(model, dataset, config)


def _score_task(
    name: str,
    config: TaskEvalConfig,
    subject: Subject,
    *,
    transcripts: Path | None = None,
    show: bool = False,
) -> dict[str, Any]:
    """A task's score as JSON, with a digest of its problems."""
    task = load_task(name, config.options)
    examples = choose_problems(task, config)  # before the model is read: these errors are cheap
    scorer = open_scorer(config, subject.runtime)
    llm = subject.open_llm(config.max_tokens)
    score = evaluate_task(
        llm,
        task,
        examples,
        config,
        template=llm.template if llm.has_template and not config.prompt.format else None,
        transcripts=transcripts,
        show=show,
        scorer=scorer,
    )
    return {**score.to_json(), "problems_sha256": problems_sha256(examples)}
