"""A run of on-policy distillation: its parts, saving and restoring them, and a check of vocabularies."""

import logging
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch

from shoestring import config as configs
from shoestring.cost.step import Flops
from shoestring.device import Runtime
from shoestring.distill.on_policy_recipe import OnPolicyConfig
from shoestring.durable import write_atomic
from shoestring.engine.llm import LLM
from shoestring.engine.policy_engine import PolicyEngine
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import copy_tokenizer, save_model
from shoestring.model.hf.hub import hub_name
from shoestring.model.hf.peft import load_adapter
from shoestring.model.hf.weights import load_weights
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.train import checkpoint, state
from shoestring.train.finish import write_model_folder
from shoestring.train.optim import Optimizers, build_optimizers
from shoestring.train.report.receipt import Segment
from shoestring.train.runs.recipe import check_past
from shoestring.train.runs.trainable import load_fixed, load_trainable, merged, write_adapter

log = logging.getLogger(__name__)

MAX_SEQUENCES = 256
"""Answers sampled at the same time; the others of a step wait."""


@dataclass
class OnPolicyRun:
    """The parts of a run; a checkpoint restores those that change."""

    config: OnPolicyConfig
    out: Path
    start: str
    """The model that the student started from: its folder, or its name and revision on the hub."""
    tokenizer: Tokenizer
    vocab_size: int
    student: Transformer
    teacher: Transformer
    optimizers: Optimizers
    llm: LLM
    """The engine of the student with its current weights."""
    step: int = 0
    tokens: int = 0
    """Tokens sampled so far."""
    flops: Flops = field(default_factory=dict)
    segments: list[Segment] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Names of the first student and of the run, for titles."""
        return f"{Path(self.start).name}: {self.out.resolve().name}"

    @property
    def is_finished(self) -> bool:
        return self.step >= self.config.steps


def build(
    config: OnPolicyConfig,
    runtime: Runtime,
    out: Path,
    *,
    student: Checkpoint,
    teacher: Checkpoint,
    resume: bool,
) -> OnPolicyRun:
    """The run at its start or, on `resume`, at its newest checkpoint, which may be `student`."""
    if not resume:
        checkpoint.refuse_to_overwrite(out)
    check_past(config, out)
    for each in (student, teacher):
        each.check_vocabulary()
    vocab_size = check_vocabulary(student.tokenizer, teacher.tokenizer)
    own = Checkpoint.open(out / "tokenizer")
    if not own.has_tokenizer:
        own.folder.mkdir(parents=True, exist_ok=True)
        copy_tokenizer(student.tokenizer_folder, own.folder)
    model = load_trainable(student, config.lora, runtime, seed=config.seed)
    model.gradient_checkpointing = config.gradient_checkpointing
    sequences = min(config.num_prompts * config.num_generations, MAX_SEQUENCES)
    settings = EngineSettings(max_num_seqs=sequences, max_num_batched_tokens=max(512, sequences))
    run = OnPolicyRun(
        config=config,
        out=out,
        start=hub_name(student.folder) or str(student.folder),
        tokenizer=own.tokenizer,
        vocab_size=vocab_size,
        student=model,
        teacher=load_fixed(teacher, runtime),
        optimizers=build_optimizers(model, config.optim),
        llm=LLM.of(PolicyEngine(model, own.tokenizer, settings), own),
    )
    if resume:
        _restore(run)
    write_atomic(out / "config.toml", configs.dumps(config))
    return run


def save(run: OnPolicyRun) -> None:
    """Write a checkpoint: the student or its adapter alone, and the trainer's state."""

    def write(folder: Path) -> None:
        (write_student_adapter if run.config.lora.rank else write_model)(run, folder)
        values = {
            "step": run.step,
            "start": run.start,
            "tokens": run.tokens,
            "flops": run.flops,
            "segments": [asdict(segment) for segment in run.segments],
        }
        state.save_trainer(folder, run.optimizers, values)

    checkpoint.save(run.out / "checkpoints", run.step, write)


def write_result(run: OnPolicyRun) -> None:
    """Leave the final student in `out/model`; after a LoRA run merged, and the adapter in `out/adapter`."""
    if run.config.lora.rank:
        write_model_folder(run.out / "adapter", partial(write_student_adapter, run))
        run.student = merged(run.student)
    write_model_folder(run.out / "model", partial(write_model, run))


def write_student_adapter(run: OnPolicyRun, folder: Path) -> None:
    """Write the current adapter with its tokenizer and chat template into a new folder."""
    write_adapter(run.student, folder, base=run.start, tokenizer=run.out / "tokenizer")


def write_model(run: OnPolicyRun, folder: Path) -> None:
    """Write the current student with its tokenizer and model card into a new folder."""
    lineage = f"On-policy distillation (`shoestring distill`), {run.step:,} steps, from {run.start}."
    tokenizer, name = run.out / "tokenizer", run.out.resolve().name
    save_model(run.student, folder, tokenizer_files=tokenizer, lineage=lineage, name=name)


def _restore(run: OnPolicyRun) -> None:
    """Continue from the newest whole checkpoint; with none yet, from the start."""
    folder = checkpoint.latest(run.out / "checkpoints")
    if folder is None:
        log.warning("%s has no checkpoint yet: the run starts from its beginning", run.out)
        return
    if run.config.lora.rank:
        load_adapter(run.student, folder)
    else:
        load_weights(run.student, Checkpoint.open(folder), dtype=torch.float32, device=run.student.device)
    values = state.load_trainer(folder, run.optimizers)
    run.step, run.start = values["step"], values.get("start", run.start)
    run.tokens, run.flops = values.get("tokens", 0), values.get("flops", {})
    run.segments = [Segment.of(segment) for segment in values.get("segments", ())]
    run.llm.engine.weights_changed()


def check_vocabulary(student: Tokenizer, teacher: Tokenizer) -> int:
    """The number of ids, all of which the two share; ConfigError naming the first that differs."""
    if student.vocab_size != teacher.vocab_size or student.specials != teacher.specials:
        raise ConfigError(
            f"{student.name} and {teacher.name} are different vocabularies ({student.vocab_size} and "
            f"{teacher.vocab_size} ids): on-policy distillation compares the two models token by token; "
            "distill from the teacher's answers instead"
        )
    for token_id in range(student.vocab_size):
        if student.token_bytes(token_id) != teacher.token_bytes(token_id):
            raise ConfigError(
                f"{student.name} and {teacher.name} are different vocabularies: id {token_id} is "
                f"{student.token_bytes(token_id)!r} in one and {teacher.token_bytes(token_id)!r} in another; "
                "distill from the teacher's answers instead"
            )
    return student.vocab_size
