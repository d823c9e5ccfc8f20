"""On-policy distillation: the student answers, and learns the teacher's distribution at every token."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from shoestring.cost.sampling import SamplingCounts, answer, prompt, sampling
from shoestring.cost.step import Flops, Pass, added, forward, learning
from shoestring.device import Runtime, measure_peak
from shoestring.distill.on_policy_recipe import OnPolicyConfig
from shoestring.distill.on_policy_run import OnPolicyRun, build, save, write_result
from shoestring.distill.reverse_kl import Sample, UpdateSettings, micro_batches, update
from shoestring.engine.request import SamplingParams
from shoestring.errors import ConfigError, DataError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.tasks.task import Problem
from shoestring.tokenizer.overlong import PromptMaker
from shoestring.tokenizer.prompts import ChatOptions, read_chat
from shoestring.tokenizer.questions import Question, QuestionPrompt
from shoestring.train import schedule
from shoestring.train.finish import mean_of, write_report
from shoestring.train.loop import StepResult, train
from shoestring.train.parallel import Ranks, require_one_process
from shoestring.train.report.metrics import read
from shoestring.train.runs.crash import learning_from
from shoestring.train.runs.flops import method_of, update_flops
from shoestring.train.runs.lock import run_lock


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
    """Train the student toward the teacher's distribution; returns the report.

    Folder `out` gets `model` (the result; after LoRA the merged model, beside `adapter`), report.json,
    metrics.jsonl and checkpoints. `resume` continues the newest whole one; on a CPU the weights are those of
    an unbroken run, bit for bit. Raises ConfigError for different vocabularies, Stopped (saved; resume
    later), NonFiniteError (with the samples in a file).
    """
    require_one_process(runtime, "distillation")
    if not problems:
        raise ConfigError("there are no problems to answer; name a task that has some")
    with run_lock(out):
        run = build(config, runtime, out, student=student, teacher=teacher, resume=resume)
        trainer = OnPolicyTrainer(run, problems, runtime)
        train(
            trainer,
            Ranks(runtime),
            resume=resume,
            save_every=config.save_every,
            eval_every=config.steps,
            show=on_step,
            watts=config.watts,
        )
        return trainer.finish()


class OnPolicyTrainer:
    """Steps and the end of a run of on-policy distillation."""

    def __init__(self, run: OnPolicyRun, problems: Sequence[Problem], runtime: Runtime) -> None:
        self.run, self.runtime = run, runtime
        self.peak = measure_peak(runtime)
        self._maker = PromptMaker(
            make=self._make_prompt,
            tokenizer=run.tokenizer,
            context=run.llm.max_model_len,
            max_tokens=run.config.max_tokens,
            overlong=run.config.overlong,
            setting="on_policy.overlong",
        )
        self.prompts = self._fitting(problems)
        self._epoch, self._order = -1, list[int]()

    def take_step(self) -> StepResult:
        """Sample the student's answers and move it toward the teacher's distribution on them."""
        run, config, start = self.run, self.run.config, time.perf_counter()
        samples = self._samples()
        sample_s = time.perf_counter() - start
        lr_share = schedule.warmup_share(run.step, config.warmup_steps)
        settings = UpdateSettings(
            vocab_size=run.vocab_size,
            micro_tokens=config.micro_tokens,
            rows=config.rows,
            max_grad_norm=config.optim.max_grad_norm,
            lr_share=lr_share,
        )
        with learning_from(lambda: {f"{i}.ids": torch.tensor(s.ids) for i, s in enumerate(samples)}):
            stats = update(run.student, run.teacher, run.optimizers, samples, settings)
        run.llm.engine.weights_changed()
        run.step, run.tokens = run.step + 1, run.tokens + stats.tokens
        run.flops = added(run.flops, self._flops(samples), update_flops(run.optimizers))
        row = {
            **asdict(stats),
            "answer_tokens": stats.tokens / len(samples),
            "truncated": sum(sample.is_truncated for sample in samples) / len(samples),
            "lr": config.optim.lr * lr_share,
            "sample_s": sample_s,
            "update_s": time.perf_counter() - start - sample_s,
        }
        return StepResult(row=row)

    def _flops(self, samples: Sequence[Sample]) -> Flops:
        """FLOPs of the samples, of learning from them, and of the teacher, whose logits are made twice."""
        run, config = self.run, self.run.config
        counts = SamplingCounts()
        for number, sample in enumerate(samples):
            length = len(sample.ids) - sample.num_answer_tokens
            counts += prompt(length) if number % config.num_generations == 0 else SamplingCounts()
            counts += answer(length, sample.num_answer_tokens)
        parts, method = [sampling(run.student.config, counts)], method_of(config, logits_again=True)
        for part in micro_batches(samples, config.micro_tokens):
            tokens = sum(sample.num_answer_tokens for sample in part)
            work = Pass.of_rows(len(part), max(len(sample.ids) for sample in part) - 1, (tokens,))
            twice = replace(work, predictions=(2 * tokens,))
            parts.append(learning(run.student.config, work, method))
            parts.append({"teacher": sum(forward(run.teacher.config, twice).values())})
        return added(*parts)

    def evaluate(self) -> Mapping[str, Any]:
        """No further figures."""
        return {}

    def save(self) -> None:
        save(self.run)

    def finish(self) -> dict[str, Any]:
        """Write the final model and the report; returns the report."""
        run = self.run
        write_result(run)
        rows = read(run.out / "metrics.jsonl")
        tenth = max(1, len(rows) // 10)
        report = {
            "steps": run.step,
            "tokens": sum(row["tokens"] for row in rows),
            "kl_at_start": mean_of(rows[:tenth], "kl"),
            "kl": mean_of(rows[-tenth:], "kl"),
            "overlong": self._maker.num_overlong,
        }
        data = {"start": run.start, "questions": len(self.prompts)}
        return write_report(run, self.runtime, report, data=data, peak=self.peak)

    def _samples(self) -> list[Sample]:
        """The student's answers to the step's problems; a repeated step samples the same ones."""
        run, config = self.run, self.run.config
        prompts, params = [], []
        for place in range(run.step * config.num_prompts, (run.step + 1) * config.num_prompts):
            prompts.append({"prompt_token_ids": self._prompt(place).ids})
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
                num_answer_tokens=len(answer.token_ids),
                is_truncated=answer.finish_reason == "length",
            )
            for output in run.llm.generate(prompts, params, use_tqdm=False)
            for answer in output.outputs
        ]

    def _fitting(self, problems: Sequence[Problem]) -> list[QuestionPrompt]:
        """The prompts of the problems, of those that fit; DataError when none does."""
        prompts = [self._maker.prompt(problem.example.prompt, problem.id) for problem in problems]
        self._maker.warn()
        if not (fitting := [prompt for prompt in prompts if prompt is not None]):
            raise DataError(
                f"no prompt of {len(prompts):,} problems fits into the context of {self._maker.context:,} "
                "tokens; --set on_policy.overlong=truncate keeps the end of each question"
            )
        return fitting

    def _make_prompt(self, question: Question) -> QuestionPrompt:
        thinking, run = self.run.config.thinking, self.run
        options = ChatOptions(chat_template_kwargs=None if thinking is None else {"thinking": thinking})
        messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
        prompt = read_chat(messages, run.tokenizer, run.llm.template, options)
        return QuestionPrompt(prompt.token_ids, opening="")

    def _prompt(self, place: int) -> QuestionPrompt:
        """The prompt at a place: all of them again and again, each time in another order."""
        epoch, index = divmod(place, len(self.prompts))
        if epoch != self._epoch:
            rng = random.Random(f"{self.run.config.seed}:epoch {epoch}")
            self._epoch = epoch
            self._order = rng.sample(range(len(self.prompts)), k=len(self.prompts))
        return self.prompts[self._order[index]]
