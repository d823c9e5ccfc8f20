"""Questions of tasks -> groups of answers with their rewards, sampled by the trainer's own weights."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from shoestring.engine.dispatch import Dispatcher
from shoestring.engine.engine import Engine
from shoestring.engine.request import CompletionOutput, Request, SamplingParams, derived_seed
from shoestring.rl.recipe import GRPOConfig, RewardConfig
from shoestring.tasks.load import load_task
from shoestring.tasks.rewards import format_reward, language_reward
from shoestring.tasks.task import Example
from shoestring.tasks.verify import Verifier
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.questions import QuestionPrompt, prompt_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One problem of one task as the policy is asked it."""

    task: str
    example: Example
    prompt: QuestionPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One sampled answer."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """The engine's, of each token, at temperature 1."""
    text: str
    """The whole turn, with what the prompt forced."""
    is_truncated: bool
    parts: Mapping[str, float]
    """The reward by component; empty without a verdict."""
    experts: Tensor | None = field(default=None, compare=False)
    """Where the engine sent all its tokens but the last, prompt included: (T - 1, MoE layers, K)."""

    @property
    def reward(self) -> float | None:
        """The sum of the components; None where the verifier failed."""
        return sum(self.parts.values()) if self.parts else None


class Questions:
    """An endless stream of questions that can be continued anywhere: its state is how many were drawn."""

    def __init__(self, config: GRPOConfig, tokenizer: Tokenizer, template: Template | None) -> None:
        self._config, self._tokenizer, self.template = config, tokenizer, template
        tasks = {share.name: load_task(share.name, share.options) for share in config.tasks}
        self._streams: dict[str, Iterator[Example]] = {
            name: task.examples("train", config.seed) for name, task in tasks.items()
        }
        self._choice = random.Random(f"tasks:{config.seed}")
        self.drawn = 0

    def draw(self, count: int) -> list[Question]:
        """The next questions."""
        questions = []
        for name, example in self._next(count):
            prompt = prompt_ids(example.question, self._tokenizer, self.template, self._config.prompt)
            questions.append(Question(task=name, example=example, prompt=prompt))
        return questions

    def skip(self, count: int) -> None:
        """Go on as if `count` had been drawn."""
        self._next(count)

    def _next(self, count: int) -> list[tuple[str, Example]]:
        shares = [share.share for share in self._config.tasks]
        names = self._choice.choices(list(self._streams), shares, k=count)
        self.drawn += count
        return [(name, next(self._streams[name])) for name in names]


def roll_out(
    engine: Engine, questions: Sequence[Question], config: GRPOConfig, verifier: Verifier, *, first: int
) -> list[list[Answer]]:
    """A group of answers to each question. Answers are judged while others are still being sampled.

    `first` is the number of the first question in the run: an answer's tokens depend on the seed, this number
    and the answer's place in its group, and on nothing else of the batch. Raises ConfigError for a prompt
    that does not fit.
    """
    requests = [_request(question, config, first + number) for number, question in enumerate(questions)]
    numbers = {request.request_id: number for number, request in enumerate(requests)}
    groups: list[list[Answer]] = [[] for _ in questions]
    with Dispatcher(engine).outputs(requests) as outputs:
        for output in outputs:
            number = numbers[output.request_id]
            groups[number] = [_read(questions[number], c) for c in output.outputs]
            for place, completion in enumerate(output.outputs):
                if completion.finish_reason in ("stop", "length"):
                    text, ticket = groups[number][place].text, number * config.num_generations + place
                    verifier.submit(ticket, questions[number].task, questions[number].example, text)
    for verdict in verifier.results(wait=True):
        if verdict.reward is not None:
            number, place = divmod(verdict.ticket, config.num_generations)
            answer = groups[number][place]
            parts = reward_parts(verdict.reward, answer.text, config.reward)
            groups[number][place] = replace(answer, parts=parts)
    return groups


def reward_parts(accuracy: float, text: str, config: RewardConfig) -> dict[str, float]:
    """The task's own reward and those that are added to it, by name."""
    parts = {"accuracy": accuracy}
    if config.format:
        parts["format"] = config.format * format_reward(text)
    if config.language:
        parts["language"] = config.language_weight * language_reward(text, config.language)
    return parts


def _request(question: Question, config: GRPOConfig, number_in_run: int) -> Request:
    params = SamplingParams(
        n=config.num_generations,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        logprobs=0,
        seed=derived_seed(config.seed, number_in_run),
        output_kind="final_only",
    )
    return Request(
        request_id=str(number_in_run), prompt_token_ids=question.prompt.ids, sampling_params=params
    )


def _read(question: Question, completion: CompletionOutput) -> Answer:
    return Answer(
        prompt_ids=question.prompt.ids,
        token_ids=completion.token_ids,
        logprobs=completion.token_logprobs or (),
        text=question.prompt.opening + completion.text,
        is_truncated=completion.finish_reason == "length",
        parts={},
        experts=completion.routed_experts,
    )
