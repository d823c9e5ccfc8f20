"""Rollout: the policy samples a group of answers to each problem, and verifiers reward them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from shoestring.engine.dispatch import Dispatcher
from shoestring.engine.engine import Engine
from shoestring.engine.request import CompletionOutput, Request, SamplingParams, derived_seed
from shoestring.rl.recipe import GRPOConfig, RewardConfig
from shoestring.tasks.load import load_task
from shoestring.tasks.rewards import format_reward, language_reward
from shoestring.tasks.task import Problem
from shoestring.tasks.verify import Verifier
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.questions import QuestionPrompt, prompt_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion that the policy sampled, with its reward and advantage."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The engine's, of each token, at temperature 1."""
    text: str
    """The assistant's whole turn: the opening in the prompt and the completion."""
    is_truncated: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    """The reward by component; empty without a verdict."""
    advantage: float = 0.0
    """Its reward compared with those of its group; 0 without a verdict."""
    experts: Tensor | None = field(default=None, compare=False)
    """Routed experts of all its tokens but the last, prompt included: (T - 1, MoE layers, K)."""

    @property
    def reward(self) -> float | None:
        """The sum of the components; None where the verifier failed."""
        return sum(self.parts.values()) if self.parts else None

    @property
    def num_inputs(self) -> int:
        """Tokens that the model reads to predict the answer: all but the last."""
        return len(self.prompt_ids) + len(self.token_ids) - 1


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


def roll_out(
    engine: Engine,
    problems: Sequence[Problem],
    config: GRPOConfig,
    verifier: Verifier,
    *,
    template: Template | None,
    first: int,
) -> list[list[Answer]]:
    """A group of answers to each problem; they are verified while others are still being sampled.

    `first` is the number of the first problem in the run: an answer's tokens depend on the seed, this number
    and its place in the group, and on nothing else of the batch. Raises ConfigError for a prompt that does
    not fit.
    """
    requests: list[Request] = []
    sources: dict[str, tuple[Problem, QuestionPrompt]] = {}
    for number, problem in enumerate(problems, start=first):
        assert engine.tokenizer is not None
        prompt = prompt_ids(problem.example.question, engine.tokenizer, template, config.prompt)
        requests.append(_request(number, prompt, config))
        sources[requests[-1].request_id] = problem, prompt
    groups: dict[str, list[Answer]] = {request_id: [] for request_id in sources}
    with Dispatcher(engine).outputs(requests) as outputs:
        for output in outputs:
            problem, prompt = sources[output.request_id]
            for place, completion in enumerate(output.outputs):
                answer = _answer(problem, prompt, completion)
                groups[output.request_id].append(answer)
                if completion.finish_reason in ("stop", "length"):
                    ticket = output.request_id, place
                    verifier.submit(ticket, problem.task, problem.example, answer.text)
    for verdict in verifier.results(wait=True):
        if verdict.reward is not None:
            request_id, place = verdict.ticket
            answer = groups[request_id][place]
            parts = reward_parts(verdict.reward, answer.text, config.reward)
            groups[request_id][place] = replace(answer, parts=parts)
    return list(groups.values())


def reward_parts(accuracy: float, text: str, config: RewardConfig) -> dict[str, float]:
    """Components of an answer's reward by name: the task's own, and those that the recipe adds."""
    parts = {"accuracy": accuracy}
    if config.format:
        parts["format"] = config.format * format_reward(text)
    if config.language:
        parts["language"] = config.language_weight * language_reward(text, config.language)
    return parts


def _request(number: int, prompt: QuestionPrompt, config: GRPOConfig) -> Request:
    params = SamplingParams(
        n=config.num_generations,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        token_logprobs=True,
        seed=derived_seed(config.seed, number),
        output_kind="final_only",
    )
    return Request(request_id=f"problem {number}", prompt_token_ids=prompt.ids, sampling_params=params)


def _answer(problem: Problem, prompt: QuestionPrompt, completion: CompletionOutput) -> Answer:
    return Answer(
        problem=problem,
        prompt_ids=prompt.ids,
        token_ids=tuple(completion.token_ids),
        logprobs=tuple(completion.token_logprobs or ()),
        text=prompt.opening + completion.text,
        is_truncated=completion.finish_reason == "length",
        experts=completion.routed_experts,
    )
