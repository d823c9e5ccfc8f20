"""On-policy distillation, the loop: the student answers, and learns the teacher's view of every token."""

import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from shoestring import config as configs
from shoestring.device import Runtime
from shoestring.distill.reverse_kl import Sample, UpdateSettings, update
from shoestring.durable import write_atomic
from shoestring.engine.llm import LLM
from shoestring.engine.policy_engine import PolicyEngine
from shoestring.engine.request import SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError, NonFiniteError, Stopped
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.weights import load_weights
from shoestring.tasks.task import Problem
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.prompts import ChatOptions, read_chat
from shoestring.train import checkpoint, schedule, state
from shoestring.train.finish import mean_of, replace_folder
from shoestring.train.optim import OptimConfig, build_optimizers
from shoestring.train.report.metrics import MetricsLog, read
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OnPolicyOptim(OptimConfig):
    """OptimConfig for weights that are trained already."""

    lr: float = 2e-5
    muon_lr: float = 2e-4
    weight_decay: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OnPolicyConfig:
    """Reverse KL on the student's own samples: DeepSeek-V4's distillation, GKD with lambda 1 and beta 1."""

    steps: int = 200
    num_prompts: int = 16
    """Problems in a step."""
    num_generations: int = 4
    """Answers of the student to each."""
    max_tokens: int = 1024
    """Of one answer; those that reach it are learned from like the others."""
    temperature: float = 1.0
    """The samples are the student's own only at 1; the KL is always taken at 1."""
    thinking: bool | None = None
    """What the chat template is asked for; None: its default."""
    warmup_steps: int = 10
    """The learning rate rises so long, then stays."""
    micro_tokens: int = 8192
    """Tokens in one forward pass, padding included: bounds memory, not the result."""
    rows: int = 512
    """Places whose logits are in memory at once: bounds memory, not the result."""
    save_every: int = 50
    seed: int = 0
    optim: OnPolicyOptim = field(default_factory=OnPolicyOptim)

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "num_prompts",
            "num_generations",
            "max_tokens",
            "micro_tokens",
            "rows",
            "save_every",
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        for name in ("seed", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 0")
        SamplingParams(n=self.num_generations, temperature=self.temperature, max_tokens=self.max_tokens)


def on_policy(
    config: OnPolicyConfig,
    runtime: Runtime,
    out: Path,
    *,
    student: Checkpoint,
    teacher: Checkpoint,
    problems: Sequence[Problem],
    resume: bool = False,
    on_step: Callable[[Mapping[str, Any]], None] = lambda row: None,
) -> dict[str, Any]:
    """Train the model of `student` toward that of `teacher`; returns the report.

    Into folder `out` go `model` (the result), report.json, metrics.jsonl and checkpoints. `resume` continues
    the newest whole one; on a CPU the weights are those of an unbroken run, bit for bit. Raises ConfigError
    when the two have different vocabularies, Stopped (saved; resume later), NonFiniteError (no update).
    """
    if runtime.world_size > 1:
        raise ConfigError(
            f"WORLD_SIZE = {runtime.world_size}: distillation runs in one process; start just one"
        )
    if not problems:
        raise ConfigError("there are no problems to answer; name a task that has some")
    if not resume:
        checkpoint.refuse_to_overwrite(out)
    loop = _Loop(config, runtime, out, student=student, teacher=teacher, problems=problems)
    if resume:
        loop.restore()
    write_atomic(out / "config.toml", configs.dumps(config))
    with MetricsLog(out / "metrics.jsonl", loop.step if resume else None) as metrics, StopRequest() as stop:
        while loop.step < config.steps:
            row = loop.run_step()
            metrics.log(loop.step, row)
            on_step({"step": loop.step} | row)
            if stop.wanted or loop.step % config.save_every == 0 or loop.step == config.steps:
                metrics.sync()
                loop.save()
            if stop.wanted and loop.step < config.steps:
                raise Stopped(f"stopped at step {loop.step:,} and saved; --resume --out {out} goes on")
    return loop.finish()


class _Loop:
    """The models, the optimizer and where the run is."""

    def __init__(
        self,
        config: OnPolicyConfig,
        runtime: Runtime,
        out: Path,
        *,
        student: Checkpoint,
        teacher: Checkpoint,
        problems: Sequence[Problem],
    ) -> None:
        self.config, self.out, self.source, self.problems = config, out, student.folder, problems
        self.tokenizer = student.tokenizer
        self.vocab_size = check_vocabulary(self.tokenizer, teacher.tokenizer)
        dtype, device = runtime.compute_dtype, runtime.device
        self.student = load_model(student, dtype=torch.float32, compute_dtype=dtype, device=device).train()
        self.teacher = load_model(teacher, dtype=dtype, compute_dtype=dtype, device=device)
        self.teacher.requires_grad_(False)
        self.optimizers = build_optimizers(self.student, config.optim)
        sequences = min(config.num_prompts * config.num_generations, 256)
        settings = EngineSettings(max_num_seqs=sequences, max_num_batched_tokens=max(512, sequences))
        self.llm = LLM.of(PolicyEngine(self.student, self.tokenizer, settings), student)
        self.step = 0
        self._epoch, self._order = -1, list[int]()

    def run_step(self) -> dict[str, Any]:
        """Sample, update; the step's line of metrics."""
        config, begin = self.config, time.perf_counter()
        samples = self._sample()
        middle = time.perf_counter()
        try:
            share = schedule.warmup_share(self.step, config.warmup_steps)
            settings = UpdateSettings(
                vocab_size=self.vocab_size,
                micro_tokens=config.micro_tokens,
                rows=config.rows,
                max_grad_norm=config.optim.max_grad_norm,
                lr_share=share,
            )
            stats = update(self.student, self.teacher, self.optimizers, samples, settings)
        except NonFiniteError as error:
            raise NonFiniteError(
                f"step {self.step + 1}: {error}; nothing was updated; lower optim.lr"
            ) from None
        self.llm.engine.weights_changed()
        self.step += 1
        return {
            **asdict(stats),
            "answer_tokens": stats.tokens / len(samples),
            "truncated": sum(sample.truncated for sample in samples) / len(samples),
            "lr": config.optim.lr * share,
            "sample_s": middle - begin,
            "update_s": time.perf_counter() - middle,
        }

    def _sample(self) -> list[Sample]:
        """The student's answers to the step's problems; the same ones whenever the step is run."""
        config = self.config
        options = ChatOptions(
            chat_template_kwargs=None if config.thinking is None else {"thinking": config.thinking}
        )
        prompts, params = [], []
        for place in range(self.step * config.num_prompts, (self.step + 1) * config.num_prompts):
            example = self._problem(place).example
            message = {"role": "user", "content": example.question}
            prompt = read_chat([message], self.tokenizer, self.llm.template, options)
            prompts.append({"prompt_token_ids": prompt.token_ids})
            seed = random.Random(f"{config.seed}:{place}").getrandbits(48)
            params.append(
                SamplingParams(
                    n=config.num_generations,
                    temperature=config.temperature,
                    max_tokens=config.max_tokens,
                    seed=seed,
                    detokenize=False,
                )
            )
        return [
            Sample(
                ids=(*output.prompt_token_ids, *answer.token_ids),
                answer=len(answer.token_ids),
                truncated=answer.finish_reason == "length",
            )
            for output in self.llm.generate(prompts, params, use_tqdm=False)
            for answer in output.outputs
        ]

    def _problem(self, place: int) -> Problem:
        """The problems over and over, each time in another order."""
        epoch, index = divmod(place, len(self.problems))
        if epoch != self._epoch:
            shuffled = random.Random(f"{self.config.seed}:epoch {epoch}")
            self._epoch = epoch
            self._order = shuffled.sample(range(len(self.problems)), k=len(self.problems))
        return self.problems[self._order[index]]

    def save(self) -> None:
        def write(folder: Path) -> None:
            self._write_model(folder)
            tensors, optimizer = state.flatten(self.optimizers.state_dict())
            state.save_state(folder / "trainer", tensors, {"step": self.step, "optimizer": optimizer})

        checkpoint.save(self.out / "checkpoints", self.step, write)

    def restore(self) -> None:
        folder = checkpoint.latest(self.out / "checkpoints")
        if folder is None:
            log.warning("%s holds no checkpoint yet: the run starts from its beginning", self.out)
            return
        load_weights(self.student, Checkpoint.open(folder), dtype=torch.float32, device=self.student.device)
        tensors, values = state.load_state(folder / "trainer")
        self.optimizers.load_state_dict(state.unflatten(tensors, values["optimizer"]))
        self.step = values["step"]
        self.llm.engine.weights_changed()

    def finish(self) -> dict[str, Any]:
        replace_folder(self.out / "model", self._write_model)
        rows = read(self.out / "metrics.jsonl")
        tenth = max(1, len(rows) // 10)
        report = {
            "steps": self.step,
            "tokens": sum(row["tokens"] for row in rows),
            "kl_at_start": mean_of(rows[:tenth], "kl"),
            "kl": mean_of(rows[-tenth:], "kl"),
            "seconds": sum(row["sample_s"] + row["update_s"] for row in rows),
        }
        write_atomic(self.out / "report.json", json.dumps(report, indent=2) + "\n")
        return report

    def _write_model(self, folder: Path) -> None:
        lineage = f"On-policy distillation (`shoestring distill`), {self.step:,} steps, from {self.source}."
        save_model(
            self.student, folder, tokenizer_files=self.source, lineage=lineage, name=self.out.resolve().name
        )


def check_vocabulary(student: Tokenizer, teacher: Tokenizer) -> int:
    """How many ids the two share, which is all of them; ConfigError naming the first that differs."""
    if student.vocab_size != teacher.vocab_size or student.specials != teacher.specials:
        raise ConfigError(
            f"{student.name} and {teacher.name} are different vocabularies ({student.vocab_size} and "
            f"{teacher.vocab_size} ids): on-policy distillation compares the two models word for word; "
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
