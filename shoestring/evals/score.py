"""What a task's score is: means over problems of graded answers, each with its interval."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any

from shoestring.errors import DataError
from shoestring.evals.bootstrap import interval
from shoestring.evals.estimators import Graded, maj_at_k, pass_at_k
from shoestring.tasks.rewards import format_reward
from shoestring.tasks.verify import MAX_FAULT_SHARE


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One sampled reply and what is known of it."""

    text: str
    """The assistant's whole turn, what the prompt forced included."""
    tokens: int
    thinking_tokens: int
    finish_reason: str | None
    vote: str | None
    reward: float | None
    """None when the verifier could not say, or the engine failed."""

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
    """Drawn for each problem."""
    faults: int
    """Answers without verdict, greedy ones included: neither right nor wrong, they are left out."""
    pass_at_1: float
    pass_at_k: dict[int, float]
    maj_at_k: dict[int, float]
    mean_reward: float
    mean_tokens: float
    """Of a whole sampled answer, its end token included; `mean_thinking_tokens` is the part in `<think>`."""
    mean_thinking_tokens: float
    capped_share: float
    """Of the sampled answers, those cut at the longest length; `greedy_capped_share` of the greedy ones."""
    format_share: float
    """Answers of the form `<think>...</think>answer`."""
    greedy: float | None = None
    greedy_capped_share: float | None = None
    intervals: dict[str, tuple[float, float]]

    def to_json(self) -> dict[str, Any]:
        """As it stands in a file: keys are text there, and tuples lists."""
        data: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return data


def summarize(
    task: str,
    sampled: Sequence[Sequence[Answer]],
    greedy: Sequence[Answer] | None = None,
    *,
    k: Sequence[int] = (1,),
    seed: int = 0,
) -> TaskScore:
    """The score of graded answers, one row per problem; `seed` is of the intervals.

    Raises DataError when more than 1% of the answers have no verdict, or no problem has k that have.
    """
    _check_faults(task, [answer for row in (*sampled, greedy or ()) for answer in row])
    judged = [[answer for answer in row if answer.reward is not None] for row in sampled]
    figures = _Figures(seed)
    passes, majorities = {}, {}
    for number in sorted({1, *k}):
        rows = [[Graded(a.is_right, a.vote) for a in row] for row in judged if len(row) >= number]
        right = [(len(row), sum(graded.is_right for graded in row)) for row in rows]
        passes[number] = figures.add(f"pass_at_{number}", [float(pass_at_k(*pair, number)) for pair in right])
        if number > 1:
            majorities[number] = figures.add(f"maj_at_{number}", [float(maj_at_k(r, number)) for r in rows])
    if greedy is None:
        single = {}
    else:
        single = {
            "greedy": figures.mean("greedy", [[a] for a in greedy if a.reward is not None], _is_right),
            "greedy_capped_share": figures.mean("greedy_capped_share", [[a] for a in greedy], _is_capped),
        }
    return TaskScore(
        task=task,
        problems=len(sampled),
        samples=max(map(len, sampled)),
        faults=sum(answer.reward is None for row in (*sampled, greedy or ()) for answer in row),
        pass_at_1=passes[1],
        pass_at_k=passes,
        maj_at_k=majorities,
        mean_reward=figures.mean("mean_reward", judged, lambda answer: answer.reward or 0.0),
        mean_tokens=figures.mean("mean_tokens", sampled, lambda answer: answer.tokens),
        mean_thinking_tokens=figures.mean("mean_thinking_tokens", sampled, lambda a: a.thinking_tokens),
        capped_share=figures.mean("capped_share", sampled, _is_capped),
        format_share=figures.mean("format_share", sampled, lambda answer: format_reward(answer.text)),
        intervals=figures.intervals,
        **single,
    )


class _Figures:
    """Means over problems, and the interval of each by name."""

    def __init__(self, seed: int) -> None:
        self.intervals: dict[str, tuple[float, float]] = {}
        self._seed = seed

    def add(self, name: str, values: Sequence[float]) -> float:
        """The mean of one value per problem."""
        if not values:
            raise DataError(f"{name} cannot be said: no problem has enough answers with a verdict")
        self.intervals[name] = interval(values, seed=self._seed)
        return fsum(values) / len(values)

    def mean(self, name: str, rows: Sequence[Sequence[Answer]], value: Callable[[Answer], float]) -> float:
        """The mean over problems of the mean over a problem's answers."""
        return self.add(name, [fsum(map(value, row)) / len(row) for row in rows if row])


def _check_faults(task: str, answers: Sequence[Answer]) -> None:
    faults = sum(answer.reward is None for answer in answers)
    if faults > max(1, MAX_FAULT_SHARE * len(answers)):
        raise DataError(
            f"{faults} of {len(answers)} answers to {task} got no verdict (warnings say why); "
            "repair the verifier: a score of the others would mislead"
        )


def _is_right(answer: Answer) -> bool:
    return answer.is_right


def _is_capped(answer: Answer) -> bool:
    return answer.is_capped
