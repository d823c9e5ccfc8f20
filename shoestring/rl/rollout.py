"""Rollout: the policy samples a group of answers to each problem, and verifiers reward them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from shoestring.engine.dispatch import Dispatcher
from shoestring.engine.engine import Engine
from shoestring.engine.request import CompletionOutput, Request, SamplingParams, derived_seed
from shoestring.rl.problems import PromptedProblem
from shoestring.rl.recipe import GRPOConfig, RewardConfig
from shoestring.tasks.rewards import format_reward, language_reward
from shoestring.tasks.task import Problem
from shoestring.tasks.verify import Verifier
from shoestring.tokenizer.questions import QuestionPrompt


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


def roll_out(
    engine: Engine,
    problems: Sequence[PromptedProblem],
    config: GRPOConfig,
    verifier: Verifier,
    *,
    first: int,
    on_step: Callable[[], None] = lambda: None,
) -> list[list[Answer]]:
    """A group of answers to each problem; they are verified while others are still being sampled.

    `first` is the number of the first problem in the run: an answer's tokens depend on the seed, this number
    and its place in the group, and on nothing else of the batch. `on_step` is called after each batch; what
    it raises ends the sampling.
    """
    requests = [_request(number, one.prompt, config) for number, one in enumerate(problems, start=first)]
    sources = {request.request_id: one for request, one in zip(requests, problems, strict=True)}
    groups: dict[str, list[Answer]] = {request_id: [] for request_id in sources}
    with Dispatcher(engine).outputs(requests, on_step=on_step) as outputs:
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
