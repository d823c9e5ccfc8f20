"""The problems of a run: drawn from its tasks by their shares, with prompts that fit into the context."""

import random
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from shoestring.engine.conversation.tool_use import ToolUse
from shoestring.errors import DataError
from shoestring.rl.recipe import GRPOConfig
from shoestring.tasks.load import load_task
from shoestring.tasks.task import Problem
from shoestring.tokenizer.overlong import PromptMaker
from shoestring.tokenizer.questions import QuestionPrompt

EMPTY: Mapping[str, ToolUse] = MappingProxyType({})
MAX_MISSES = 1000
"""Problems in a row that do not fit, after which a run ends: others will hardly come."""


class PromptedProblem(NamedTuple):
    """A problem and the prompt for it."""

    problem: Problem
    prompt: QuestionPrompt
    tools: ToolUse | None = None


class ProblemStream:
    """An endless stream of the tasks' problems; their number so far is all that a checkpoint needs of it."""

    def __init__(self, config: GRPOConfig) -> None:
        self.tasks = {share.name: load_task(share.name, share.options) for share in config.tasks}
        self._shares = [share.share for share in config.tasks]
        self._examples = {name: task.examples("train", config.seed) for name, task in self.tasks.items()}
        self._random = random.Random(f"tasks:{config.seed}")
        self.num_drawn = 0

    def draw(self, count: int) -> list[Problem]:
        """The next `count` problems, each of a task chosen by the shares."""
        names = self._random.choices(list(self._examples), self._shares, k=count)
        self.num_drawn += count
        return [Problem(task=name, example=next(self._examples[name])) for name in names]

    def draw_prompted(
        self, count: int, prompts: PromptMaker, tools: Mapping[str, ToolUse] = EMPTY
    ) -> list[PromptedProblem]:
        """The next `count` problems whose prompts fit; `tools` are those of the tasks that have some.

        Raises DataError when a thousand in a row do not, ConfigError where one that does not fit is an error.
        """
        results: list[PromptedProblem] = []
        misses = 0
        while len(results) < count:
            [problem] = self.draw(1)
            use = tools.get(problem.task)
            definitions = () if use is None else use.definitions
            prompt = prompts.prompt(problem.example.prompt, problem.id, tools=definitions)
            misses = misses + 1 if prompt is None else 0
            if misses == MAX_MISSES:
                raise DataError(
                    f"the last {misses:,} problems do not fit into the context of {prompts.context:,} "
                    "tokens; --set overlong=truncate keeps the end of each question"
                )
            if prompt is not None:
                results.append(PromptedProblem(problem, prompt, use))
        return results
