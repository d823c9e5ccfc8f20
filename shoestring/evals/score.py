"""The score of a task: means over problems of scored answers, each with its interval."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import fsum
from typing import Any

from shoestring.errors import DataError
from shoestring.evals.bootstrap import interval
from shoestring.evals.estimators import Sample, best_at_k, maj_at_k, pass_at_k
from shoestring.tasks.rewards import format_reward
from shoestring.tasks.verify import MAX_FAULT_SHARE


@dataclass(frozen=True, kw_only=True)
class ScoredAnswer:
    """One reply to a problem with its reward, vote and length."""

    text: str
    """The assistant's whole turn, with the opening that the prompt forces."""
    tokens: int
    thinking_tokens: int
    finish_reason: str | None
    vote: str | None
    reward: float | None
    """None without a verdict, or when the engine failed."""
    applies: bool = True
    """Whether there is a reward for this answer; one to which none applies is left out, and no fault."""

    @property
    def is_fault(self) -> bool:
        return self.applies and self.reward is None

    figures: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Those of `task.figures`."""
    preference: float | None = None
    """The score of a reward model, where there is one."""

    @property
    def is_right(self) -> bool:
        return self.reward is not None and self.reward >= 1.0

    @property
    def is_capped(self) -> bool:
        return self.finish_reason == "length"


@dataclass(frozen=True, kw_only=True)
class TaskScore:
    """Means over problems; `intervals` holds the 95% bootstrap interval of each by name (`pass_at_8`)."""

    task: str
    problems: int
    samples: int
    """Samples for each problem."""
    faults: int
    """Answers without a verdict, greedy ones included; they are left out, neither right nor wrong."""
    overlong: int = 0
    """Problems whose prompts did not fit into the context: left out of all figures, or shortened."""
    pass_at_1: float
    pass_at_k: dict[int, float]
    maj_at_k: dict[int, float]
    best_at_k: dict[int, float] = field(default_factory=dict)
    """Share of right answers when a reward model chooses one of k; empty without one."""
    mean_reward: float
    mean_tokens: float
    """Of whole sampled answers, with their end token; `mean_thinking_tokens` is the part in `<think>`."""
    mean_thinking_tokens: float
    capped_share: float
    """Share of sampled answers cut at `max_tokens`; `greedy_capped_share` is that of greedy ones."""
    format_share: float
    """Share of answers of the form `<think>...</think>answer`."""
    figures: dict[str, float] = field(default_factory=dict)
    """The task's own, such as the four of IFEval: means over all numbers of the sampled answers."""
    greedy: float | None = None
    greedy_capped_share: float | None = None
    intervals: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """The score as it is in a file: keys are strings, tuples are lists; without what is empty or 0."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for name in ("overlong", "best_at_k", "figures"):
            if not data[name]:
                del data[name]  # scores of earlier versions are repeated to the last bit
        return data


def summarize(
    task: str,
    samples: Sequence[Sequence[ScoredAnswer]],
    greedy: Sequence[ScoredAnswer] | None = None,
    *,
    k: Sequence[int] = (1,),
    seed: int = 0,
) -> TaskScore:
    """The score of answers, one row per problem; `seed` is that of the intervals.

    Raises DataError when more than 1% of the answers have no verdict, or no problem has k with one.
    """
    _check_faults(task, [answer for row in (*samples, greedy or ()) for answer in row])
    with_verdict = [[answer for answer in row if answer.reward is not None] for row in samples]
    figures = _Figures(seed)
    passes, majorities, best = {}, {}, {}
    for number in sorted({1, *k}):
        rows = [[Sample(a.is_right, a.vote) for a in row] for row in with_verdict if len(row) >= number]
        right = [(len(row), sum(sample.is_right for sample in row)) for row in rows]
        passes[number] = figures.add(f"pass_at_{number}", [float(pass_at_k(*pair, number)) for pair in right])
        if number > 1:
            majorities[number] = figures.add(f"maj_at_{number}", [float(maj_at_k(r, number)) for r in rows])
            choices = [_choices(row) for row in with_verdict if len(row) >= number]
            if all(choices):
                values = [float(best_at_k(choice, number)) for choice in choices]
                best[number] = figures.add(f"best_at_{number}", values)
    single: dict[str, Any] = {}
    if greedy is not None:
        single = {
            "greedy": figures.mean("greedy", [[a] for a in greedy if a.reward is not None], _is_right),
            "greedy_capped_share": figures.mean("greedy_capped_share", [[a] for a in greedy], _is_capped),
        }
    return TaskScore(
        task=task,
        problems=len(samples),
        samples=max(map(len, samples)),
        faults=sum(answer.is_fault for row in (*samples, greedy or ()) for answer in row),
        pass_at_1=passes[1],
        pass_at_k=passes,
        maj_at_k=majorities,
        best_at_k=best,
        mean_reward=figures.mean("mean_reward", with_verdict, lambda answer: answer.reward or 0.0),
        mean_tokens=figures.mean("mean_tokens", samples, lambda answer: answer.tokens),
        mean_thinking_tokens=figures.mean("mean_thinking_tokens", samples, lambda a: a.thinking_tokens),
        capped_share=figures.mean("capped_share", samples, _is_capped),
        format_share=figures.mean("format_share", samples, lambda answer: format_reward(answer.text)),
        figures={name: figures.weighted(name, samples) for name in _names(samples)},
        intervals=figures.intervals,
        **single,
    )


def _choices(row: Sequence[ScoredAnswer]) -> list[tuple[float, bool]]:
    """The reward model's score of each answer, and whether it is right; empty without a reward model."""
    return [(answer.preference, answer.is_right) for answer in row if answer.preference is not None]


class _Figures:
    """Means over problems, and their intervals by name."""

    def __init__(self, seed: int) -> None:
        self.intervals: dict[str, tuple[float, float]] = {}
        self._seed = seed

    def add(self, name: str, values: Sequence[float]) -> float:
        """The mean of one value per problem."""
        if not values:
            raise DataError(f"{name} is undefined: no problem has enough answers with a verdict")
        self.intervals[name] = interval(values, seed=self._seed)
        return fsum(values) / len(values)

    def mean(
        self, name: str, rows: Sequence[Sequence[ScoredAnswer]], value: Callable[[ScoredAnswer], float]
    ) -> float:
        """The mean over problems of the mean over a problem's answers."""
        return self.add(name, [fsum(map(value, row)) / len(row) for row in rows if row])

    def weighted(self, name: str, rows: Sequence[Sequence[ScoredAnswer]]) -> float:
        """The mean over all numbers of a figure; a problem with more of them weighs more."""
        numbers = [[x for answer in row for x in answer.figures[name]] for row in rows]
        share = len(numbers) / sum(map(len, numbers))
        return self.add(name, [fsum(row) * share for row in numbers])


def _names(rows: Sequence[Sequence[ScoredAnswer]]) -> list[str]:
    """Names of the task's figures."""
    return list(next((answer.figures for row in rows for answer in row), {}))


def _check_faults(task: str, answers: Sequence[ScoredAnswer]) -> None:
    faults = sum(answer.is_fault for answer in answers)
    if faults > max(1, MAX_FAULT_SHARE * len(answers)):
        raise DataError(
            f"{faults} of {len(answers)} answers to {task} got no verdict (warnings say why); "
            "repair the verifier: a score of the other answers would mislead"
        )


def _is_right(answer: ScoredAnswer) -> bool:
    return answer.is_right


def _is_capped(answer: ScoredAnswer) -> bool:
    return answer.is_capped
