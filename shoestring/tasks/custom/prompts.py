"""Prompts: a data set with columns as a task, rewarded by functions that take completions and columns."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from shoestring.errors import ConfigError
from shoestring.tasks.custom.columns import read_examples
from shoestring.tasks.custom.functions import (
    Outcome,
    call_all,
    load_functions,
    missing_columns,
    reads_messages,
)
from shoestring.tasks.custom.source import line_of, sentence
from shoestring.tasks.custom.tools import Tool, load_tools
from shoestring.tasks.problems import in_order
from shoestring.tasks.task import BatchJudgment, BatchTask, Example, Judgment, Reply, Split

MAX_NOTE_CHARS = 2000
"""Of a value that a function logs for one completion."""


@dataclass(frozen=True, kw_only=True)
class Prompts(BatchTask):
    """Prompts of a data set; the reward is the weighted sum of those of the functions that apply.

    Without functions every reward is 0: the recipe's own rewards (`reward.functions`, a judge) are all.
    """

    functions: tuple[str, ...] = ()
    """Reward functions: `file.py:name`, `file.py` (all in it that take completions) or `module:name`."""
    weights: tuple[float, ...] = ()
    """One for each function; empty: all 1."""
    data: str = ""
    """A file, folder, pattern or data set of the hub: jsonl, JSON, csv, parquet, also .gz and .zst."""
    test_data: str = ""
    """The same for the test split; empty: files of `data` that are called test, or one in ten prompts."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Further names of columns: {"prompt": "text", "solution": "answer"}."""
    conversational: bool | None = None
    """Whether prompts and completions are lists of messages for the functions; None: as the prompts are, or
    as a function reads them."""
    tool_functions: tuple[str, ...] = ()
    """Tools that the model may call: calculator, python (in the sandbox), or `file.py:name`."""
    turns: int = 5
    """Turns of a conversation with tools at most."""
    timeout_s: float = 120.0  # type: ignore[misc]
    """For all completions of a step together."""

    is_own = True

    def __post_init__(self) -> None:
        if self.weights and len(self.weights) != len(self.own_functions):
            names = ", ".join(self.own_functions)
            raise ConfigError(
                f"{len(self.weights)} weights for {len(self.own_functions)} functions ({names})"
            )
        if self.timeout_s <= 0 or self.turns < 1:
            raise ConfigError(f"timeout_s = {self.timeout_s} must be over 0, turns = {self.turns} at least 1")
        assert self.tools is not None  # its mistakes show before any heavy work

    @cached_property
    def own_functions(self) -> dict[str, Callable[..., Any]]:
        """The functions by their names."""
        return load_functions(self.functions)

    @cached_property
    def tools(self) -> tuple[Tool, ...]:
        """The tools as functions."""
        return load_tools(self.tool_functions)

    @property
    def max_turns(self) -> int:
        """Turns of a conversation with tools."""
        return self.turns if self.tools else 1

    @property
    def name(self) -> str:
        return ", ".join(self.own_functions) or "prompts"

    @property
    def part_names(self) -> tuple[str, ...]:
        return tuple(self.own_functions)

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """The data set's prompts; raises DataError as `read_examples`, ConfigError for a missing column."""
        if not self.data:
            raise ConfigError(
                f"{self.name} needs prompts: name their file or data set by the option data, such as "
                f"--task {','.join(self.functions) or 'prompts'},data=prompts.jsonl"
            )
        examples = read_examples(self.data, self.test_data, split, self.columns)
        for name, function in self.own_functions.items():
            if missing := missing_columns(function, tuple(examples[0].answer)):
                has = ", ".join(examples[0].answer)
                raise ConfigError(
                    f"{line_of(function)}: {name} asks for {missing[0]!r}, and {self.data} has {has}; "
                    f"name the column by options.columns.{missing[0]}"
                )
        return in_order(examples, split, seed)

    def reward(self, example: Example, text: str) -> float | None:
        """The reward of one reply alone."""
        return self.judge_all([Reply(example=example, text=text)], {}).judgments[0].reward

    def prepare(self) -> None:
        """Import the functions."""
        assert self.own_functions is not None

    def judge_all(self, replies: Sequence[Reply], state: Mapping[str, Any]) -> BatchJudgment:
        """Call the functions on all replies; where one raises, on each alone, to cost its own reply."""
        try:
            return self._judge(replies, state)
        except Exception as error:
            if self._find_styles(replies[0]):
                return self.judge_all(replies, state)
            if len(replies) == 1:
                return BatchJudgment(judgments=[Judgment(reward=None, error=sentence(error))])
            alone = [self.judge_all([reply], state).judgments[0] for reply in replies]
            return BatchJudgment(judgments=alone)

    def _judge(self, replies: Sequence[Reply], state: Mapping[str, Any]) -> BatchJudgment:
        texts, messages = self._columns(replies, False), self._columns(replies, True)
        is_chat = self.conversational
        if is_chat is None:
            is_chat = bool(replies[0].example.messages)
        columns = {
            name: messages if is_chat or name in self._message_readers else texts
            for name in self.own_functions
        }
        outcome = call_all(self.own_functions, columns, state)
        judgments = [self._judgment(outcome, number) for number in range(len(replies))]
        return BatchJudgment(judgments=judgments, metrics=outcome.metrics)

    def _judgment(self, outcome: Outcome, number: int) -> Judgment:
        """The weighted sum of the rewards that apply to a completion; none of none."""
        rewards = [of_function[number] for of_function in outcome.rewards]
        weights = self.weights or (1.0,) * len(rewards)
        terms = [w * reward for w, reward in zip(weights, rewards, strict=True) if reward is not None]
        names = zip(self.own_functions, rewards, strict=True)
        return Judgment(
            reward=float(sum(terms)) if terms or not rewards else None,
            parts={name: reward for name, reward in names if reward is not None},
            notes={column: _note(values[number]) for column, values in outcome.extra.items()},
        )

    @cached_property
    def _message_readers(self) -> set[str]:
        """Functions that read completions as messages although the prompts are texts."""
        return set()

    def _find_styles(self, reply: Reply) -> bool:
        """Find functions that read completions as messages; returns whether there are new ones.

        TRL gives texts for prompts that are texts. Functions are often written for messages all the same,
        since the prompts become messages before TRL sees them; here a chat template makes them messages.
        """
        if self.conversational is not None:
            return False
        columns = self._columns([replace(reply, text="text", messages=())], False)
        others = {k: f for k, f in self.own_functions.items() if k not in self._message_readers}
        new = {name for name, function in others.items() if reads_messages(function, columns)}
        self._message_readers.update(new)
        return bool(new)

    def _columns(self, replies: Sequence[Reply], chat: bool) -> dict[str, list[Any]]:
        """The arguments for the functions, one value for each reply; texts, or (`chat`) messages."""
        answers = [reply.example.answer for reply in replies]
        rows = [answer if isinstance(answer, dict) else {"answer": answer} for answer in answers]
        names = dict.fromkeys(name for row in rows for name in row)
        return {
            "prompts": [_prompt(reply.example, chat) for reply in replies],
            "completions": [_completion(reply, chat) for reply in replies],
            "completion_ids": [list(reply.token_ids) for reply in replies],
            **{name: [row.get(name) for row in rows] for name in names if name not in ("completion_ids",)},
        }


def _note(value: Any) -> Any:
    """A logged value as JSON has it; a long one as the begin of its text."""
    text = json.dumps(value, default=str)
    return json.loads(text) if len(text) <= MAX_NOTE_CHARS else text[:MAX_NOTE_CHARS]


def _prompt(example: Example, chat: bool) -> Any:
    if not chat:
        return example.question
    return list(example.messages) or [{"role": "user", "content": example.question}]


def _completion(reply: Reply, chat: bool) -> Any:
    if not chat:
        return reply.text
    return list(reply.messages) or [{"role": "assistant", "content": reply.text}]
