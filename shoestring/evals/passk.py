"""Score a model on a task: sample answers, verify them, and compute pass@k, maj@k, greedy and lengths."""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from shoestring.device import Runtime
from shoestring.durable import write_atomic
from shoestring.engine.conversation.tool_use import ToolUse, tool_use
from shoestring.engine.conversation.turns import Conversation
from shoestring.engine.request import MAX_CHOICES, SamplingParams, derived_seed
from shoestring.errors import ConfigError, DataError
from shoestring.evals.replies import Sampler, sample_replies
from shoestring.evals.score import ScoredAnswer, TaskScore, summarize
from shoestring.model.hf.named import open_model
from shoestring.model.hf.reward import RewardScorer
from shoestring.tasks.task import Example, Split, Task, distinct_examples
from shoestring.tasks.verify import Verifier
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.overlong import Overlong, PromptMaker
from shoestring.tokenizer.questions import PromptStyle, QuestionPrompt, prompt_ids
from shoestring.tokenizer.thinking import thinking_tokens

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TaskEvalConfig:
    """Settings of a task's score: with the model and the task's name they determine it."""

    options: dict[str, Any] = field(default_factory=dict)
    """The task's own fields, such as {"numbers": 4} for countdown."""
    split: Split = "test"
    problems: int = 300
    """Most problems; a finite split may have fewer."""
    seed: int = 0
    """Seed of the choice of problems, of every sample and of the intervals."""
    samples: int = 8
    """Answers sampled for each problem, at most 128."""
    k: tuple[int, ...] = (1, 8)
    """The k of pass@k and, from 2 on, of maj@k; each at most `samples`."""
    greedy: bool = False
    """Also one answer at temperature 0."""
    temperature: float = 0.6
    """This and top_p as DeepSeek-R1 was evaluated (arXiv 2501.12948, section 3)."""
    top_p: float = 0.95
    max_tokens: int = 2048
    """Longest answer; one that is cut here, or at the end of the context, counts as capped."""
    overlong: Overlong = "filter"
    """Problems whose prompts do not fit into the context: filter (leave out, count), truncate or error."""
    prompt: PromptStyle = field(default_factory=PromptStyle)
    reward_model: str = ""
    """A reward model, a folder or a hub name: best@k is the score of its choices among k answers."""
    above: float | None = None
    """A threshold for the exit code: pass@1 must reach it. It changes no figure."""

    def __post_init__(self) -> None:
        if not 1 <= self.samples <= MAX_CHOICES:
            raise ConfigError(f"samples = {self.samples} must be from 1 to {MAX_CHOICES}")
        if self.problems < 1:
            raise ConfigError(f"problems = {self.problems} must be at least 1")
        wrong = [k for k in self.k if not 1 <= k <= self.samples]
        if wrong:
            raise ConfigError(f"k holds {wrong[0]}; it must be from 1 to samples = {self.samples}")
        self.params("")  # raises for temperature, top_p and max_tokens

    def params(self, key: str) -> SamplingParams:
        """Sampling parameters of a problem; completion i of n uses seed + i, far from other problems'."""
        return SamplingParams(
            n=self.samples,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            seed=derived_seed(self.seed, key),
        )


def choose_problems(task: Task, config: TaskEvalConfig) -> list[Example]:
    """The problems of a score, each once; DataError when the split has none."""
    examples = distinct_examples(task, config.split, config.seed, config.problems)
    if not examples:
        raise DataError(f"the {config.split} split of {task.name} has no problem")
    return examples


def evaluate_task(
    llm: Sampler,
    task: Task,
    examples: Sequence[Example],
    config: TaskEvalConfig,
    *,
    template: Template | None = None,
    transcripts: Path | None = None,
    show: bool = False,
    scorer: RewardScorer | None = None,
) -> TaskScore:
    """Sample, verify and score; one request of n answers per problem, so its prompt is computed once.

    The seed of a problem's samples comes from `config.seed` and its key alone: neither other problems nor the
    batch change its answers (on a CPU in float32 to the last bit). maj@k counts the votes of `task.vote`.

    Args:
        examples: at least one, of different keys; see `choose_problems`.
        template: the model's; None when config.prompt has a format.
        transcripts: a .jsonl file for every answer with its reward, one problem per line.
        show: show progress on a terminal.
        scorer: `open_scorer` of the settings: the reward model, which also scores each answer.

    Raises ConfigError for a prompt that does not fit where `config.overlong` is "error", DataError when none
    fits or more than 1% of the answers get no verdict.
    """
    if not examples:
        raise DataError(f"there is no problem of {task.name} to score")
    tokenizer = llm.get_tokenizer()
    maker = PromptMaker(
        make=partial(prompt_ids, tokenizer=tokenizer, template=template, style=config.prompt),
        tokenizer=tokenizer,
        context=llm.max_model_len,
        max_tokens=config.max_tokens,
        overlong=config.overlong,
    )
    tools = tool_use(task.name, task, tokenizer, template, thinking=config.prompt.thinking)
    examples, prompts = _fitting(examples, maker, tools)
    greedy = None
    with Verifier({task.name: task}) as verifier:
        grader = _Grader(task, verifier, tokenizer)
        sample = partial(sample_replies, llm, prompts, tools=tools, verifier=verifier, show=show)
        params = [config.params(example.key) for example in examples]
        samples = grader.grade(examples, prompts, sample(params))
        if config.greedy:
            params = [SamplingParams(temperature=0, max_tokens=config.max_tokens)] * len(examples)
            greedy = [row[0] for row in grader.grade(examples, prompts, sample(params))]
    if scorer is not None:
        samples = _with_preferences(samples, examples, scorer)
    if transcripts is not None:
        _write_transcripts(transcripts, examples, samples, greedy)
    score = summarize(task.name, samples, greedy, k=config.k, seed=config.seed)
    return replace(score, overlong=maker.num_overlong)


def open_scorer(config: TaskEvalConfig, runtime: Runtime) -> RewardScorer | None:
    """The reward model of the settings, if they name one. Raises CheckpointError, ConfigError."""
    return RewardScorer(open_model(config.reward_model), runtime) if config.reward_model else None


def _with_preferences(
    rows: Sequence[Sequence[ScoredAnswer]], examples: Sequence[Example], scorer: RewardScorer
) -> list[list[ScoredAnswer]]:
    """The answers with the reward model's scores."""
    pairs = zip(examples, rows, strict=True)
    scores = iter(scorer.score(example.answered(answer.text) for example, row in pairs for answer in row))
    return [[replace(answer, preference=next(scores)) for answer in row] for row in rows]


def _fitting(
    examples: Sequence[Example], maker: PromptMaker, tools: ToolUse | None
) -> tuple[list[Example], list[QuestionPrompt]]:
    """The examples whose prompts fit, and these prompts; DataError when there is none."""
    definitions = () if tools is None else tools.definitions
    pairs = [(each, maker.prompt(each.prompt, each.key, tools=definitions)) for each in examples]
    maker.warn()
    fitting = [(example, prompt) for example, prompt in pairs if prompt is not None]
    if not fitting:
        raise DataError(
            f"no prompt of {len(examples):,} problems fits into the context of {maker.context:,} tokens; "
            "--set overlong=truncate keeps the end of each question"
        )
    return [example for example, _ in fitting], [prompt for _, prompt in fitting]


class _Grader:
    """Turns replies into answers with votes and rewards."""

    def __init__(self, task: Task, verifier: Verifier, tokenizer: Tokenizer) -> None:
        self._task, self._verifier, self._tokenizer = task, verifier, tokenizer

    def grade(
        self,
        examples: Sequence[Example],
        prompts: Sequence[QuestionPrompt],
        replies: Sequence[Sequence[Conversation]],
    ) -> list[list[ScoredAnswer]]:
        """One row of answers per problem, in the order of sampling."""
        parts = zip(examples, prompts, replies, strict=True)
        rows = [[self._read(e, p, conversation) for conversation in row] for e, p, row in parts]
        for number, row in enumerate(rows):
            for place, answer in enumerate(row):
                if answer.finish_reason in ("stop", "length"):
                    self._verifier.submit(
                        (number, place),
                        self._task.name,
                        examples[number],
                        answer.text,
                        messages=replies[number][place].messages,
                        token_ids=replies[number][place].token_ids,
                    )
                else:
                    log.warning("no answer to %s: %s", examples[number].key, answer.finish_reason)
        for verdict in self._verifier.results(wait=True):
            number, place = verdict.ticket
            applies = verdict.reward is not None or verdict.fault is not None
            rows[number][place] = replace(rows[number][place], reward=verdict.reward, applies=applies)
        return rows

    def _read(self, example: Example, prompt: QuestionPrompt, reply: Conversation) -> ScoredAnswer:
        own = [i for i, is_own in zip(reply.token_ids, reply.is_own, strict=True) if is_own]
        return ScoredAnswer(
            text=reply.text,
            tokens=len(own),
            thinking_tokens=thinking_tokens(prompt.opening, own, self._tokenizer),
            finish_reason=reply.finish_reason,
            vote=self._task.vote(example, reply.text),
            figures=self._task.figures(example, reply.text),
            reward=None,
        )


def _write_transcripts(
    path: Path,
    examples: Sequence[Example],
    samples: Sequence[Sequence[ScoredAnswer]],
    greedy: Sequence[ScoredAnswer] | None,
) -> None:
    lines = []
    for number, (example, row) in enumerate(zip(examples, samples, strict=True)):
        line = {**asdict(example), "answers": [asdict(answer) for answer in row]}
        if greedy is not None:
            line["greedy"] = asdict(greedy[number])
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines))
