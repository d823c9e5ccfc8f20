"""A task: examples, each with a question, and a reward for a reply to one."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from shoestring.tasks.answers import split_reply

if TYPE_CHECKING:
    from shoestring.tokenizer.questions import Question

Split = Literal["train", "test"]
DRAWS_PER_EXAMPLE = 20
"""Draws per example, on average, after which a task has no further ones: it may repeat without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One problem; everything in it is JSON, so it can be sent to a process and stored in a file."""

    key: str = ""
    """Identifies the problem within its task: equal problems have equal keys. Empty: made of the question."""
    question: str
    """The user's message."""
    answer: Any = None
    """The data that the verifier needs; never shown to the model."""
    messages: Sequence[Mapping[str, Any]] = ()
    """The conversation that ends in the question; empty where the question is all of it."""

    def __post_init__(self) -> None:
        if not self.key:
            object.__setattr__(self, "key", key_of(str(self.question)))

    @property
    def prompt(self) -> "Question":
        """The conversation, or the question alone."""
        return list(self.messages) if self.messages else self.question

    @property
    def turns(self) -> tuple[dict[str, Any], ...]:
        """The messages of the prompt."""
        messages = self.messages or ({"role": "user", "content": self.question},)
        return tuple(dict(message) for message in messages)

    def answered(self, text: str) -> list[dict[str, Any]]:
        """The prompt with a reply's answer, without its thinking: what a reward model reads."""
        return [*self.turns, {"role": "assistant", "content": split_reply(text).answer}]


def key_of(question: str) -> str:
    """A key of a question, whatever its spacing: 16 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(" ".join(question.split()).encode(errors="replace")).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """An example with the name of its task, as reinforcement, distillation and verifiers know it."""

    task: str
    """The name that the verifier has the task under."""
    example: Example

    @property
    def id(self) -> str:
        """Task and key: equal for equal problems."""
        return f"{self.task}/{self.example.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A reply to judge, with all that is known of it; all of it is JSON."""

    example: Example
    text: str
    """The assistant's last turn: `<think>...</think>` and then the answer."""
    messages: Sequence[Mapping[str, Any]] = ()
    """All messages since the prompt, where there are calls of tools; empty: the one turn."""
    token_ids: Sequence[int] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgment:
    """A reply's reward, and what it is made of."""

    reward: float | None
    """None where no reward applies to the reply: it is left out, and no fault."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Rewards by function, before weights."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Further columns for the log of answers."""
    error: str = ""
    """The reason why the reply could not be judged: a fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchJudgment:
    """The judgments of many replies, in their order, and figures of all of them together."""

    judgments: Sequence[Judgment]
    metrics: Mapping[str, float] = field(default_factory=dict)


class Task(Protocol):
    """A source of problems with a verifier; a task subclasses it and writes `examples` and `reward`.

    A built-in task also writes `name`; that of a class in a user's file is the file's. All methods are
    total: `reward` and `vote` take any text and never evaluate it.
    """

    is_pure: ClassVar[bool] = False
    """Whether `reward` always ends soon and runs no code of others: then it is called in this process.

    Every other task's reward runs in a child process that can be killed.
    """

    is_batched: ClassVar[bool] = False
    """Whether it is a BatchTask."""
    runs_here: ClassVar[bool] = False
    """Whether a BatchTask judges in this process, because all it does is to wait for a server."""
    is_own: ClassVar[bool] = False
    """Whether the code is the user's, whose child process gets all of the environment."""
    timeout_s: ClassVar[float | None] = None
    """Seconds for one reward in a child process; None: those of the verifier."""

    @property
    def name(self) -> str: ...

    @property
    def tools(self) -> Sequence[Callable[..., Any]]:
        """Functions that the model may call (see tasks/custom/tools.py), whose results it reads."""
        return ()

    @property
    def max_turns(self) -> int:
        """Turns of the model in a conversation at most; the calls of the last one get no result."""
        return 1

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """Problems in an order that `seed` decides.

        Training ones never end (a finite set starts anew in another order). Of the test split, no problem is
        ever among the training ones; it may end. Raises DataError for a data set that cannot be read.
        """
        ...

    def reward(self, example: Example, text: str) -> float | None:
        """A number, 1 for a right reply and 0 for a wrong one; None when the verifier cannot say.

        `text` is the assistant's whole turn, `<think>...</think>` and then the answer. None is a fault of the
        verifier: it is counted and never scored.
        """
        ...

    def vote(self, example: Example, text: str) -> str | None:
        """The answer that a reply votes for in a majority (maj@k), or None; it never sees a reward.

        By default the answer's text. Tasks whose equal answers can be written in several ways give one form.
        """
        return vote_of_text(text)

    def figures(self, example: Example, text: str) -> Mapping[str, Sequence[float]]:
        """Further figures of a reply in an evaluation, by name; a score has the mean of all numbers.

        It takes any text, is called in this process as `vote` is, and has the same names for every reply.
        """
        return {}

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the parts that its judgments may have: of reward functions."""
        return ()

    def prepare(self) -> None:
        """Load what the first reward needs, so that it does not count as the first reply's time."""
        return


class BatchTask(Task, Protocol):
    """A task that judges the replies of a step together, such as one of reward functions as TRL has them."""

    is_batched: ClassVar[bool] = True

    def judge_all(self, replies: Sequence[Reply], state: Mapping[str, Any]) -> BatchJudgment:
        """One judgment for each reply; `state` is the training's, such as its global_step and max_steps."""
        ...


def vote_of_text(text: str) -> str | None:
    """The text of a reply's answer, whatever its spacing; None without one."""
    return " ".join(split_reply(text).answer.split()) or None


def distinct_examples(task: Task, split: Split, seed: int, count: int) -> list[Example]:
    """The first `count` examples of different keys; fewer where the split has no more."""
    examples: dict[str, Example] = {}
    for example in islice(task.examples(split, seed), DRAWS_PER_EXAMPLE * count):
        examples.setdefault(example.key, example)
        if len(examples) == count:
            break
    return list(examples.values())
