"""Rollout: the policy samples a group of answers to each problem, and verifiers reward them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from shoestring.engine.conversation.turns import Conversation, Start, converse
from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, SamplingParams, derived_seed
from shoestring.model.hf.reward import RewardScorer
from shoestring.rl.problems import PromptedProblem
from shoestring.rl.recipe import GRPOConfig
from shoestring.rl.rewards import added_rewards, reward_parts, with_preferences
from shoestring.tasks.task import Problem
from shoestring.tasks.verify import Verdict, Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A completion that the policy sampled, with its reward and advantage."""

    problem: Problem
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """All after the prompt: with tools also the tokens of their results."""
    logprobs: tuple[float, ...]
    """The engine's, of each token, at temperature 1; 0 for those of tools' results."""
    text: str
    """The assistant's whole turn, of several the last: the opening in the prompt and the completion."""
    is_truncated: bool
    is_own: tuple[bool, ...] = ()
    """Whether each token is the policy's, which alone are learned; empty: all are."""
    messages: Sequence[Mapping[str, Any]] = ()
    """Its turns and the results of its calls, for a task with tools."""
    num_calls: int = 0
    num_errors: int = 0
    """Calls of tools whose result is an error."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """The reward by component; empty without a verdict."""
    rewards: Mapping[str, float] = field(default_factory=dict)
    """The rewards of functions by name, before their weights."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Columns that reward functions wrote for people to read."""
    advantage: float = 0.0
    """Its reward compared with those of its group; 0 without a verdict."""
    experts: Tensor | None = field(default=None, compare=False)
    """Routed experts of all its tokens but the last, prompt included: (T - 1, MoE layers, K)."""

    @property
    def reward(self) -> float | None:
        """The sum of the components; None where the verifier failed."""
        return sum(self.parts.values()) if self.parts else None

    @property
    def num_own(self) -> int:
        """Tokens that the policy sampled."""
        return sum(self.is_own) if self.is_own else len(self.token_ids)

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
    scorer: RewardScorer | None = None,
) -> list[list[Answer]]:
    """A group of answers to each problem; they are verified while others are still being sampled.

    `first` is the number of the first problem in the run: an answer's tokens depend on the seed, this number
    and its place in the group, and on nothing else of the batch. `on_step` is called after each batch; what
    it raises ends the sampling. `scorer` is the reward model, where it judges.
    """
    starts = [_start(number, one, config) for number, one in enumerate(problems, start=first)]
    problem_of = {start.request.request_id: one for start, one in zip(starts, problems, strict=True)}
    groups: dict[str, dict[int, Answer]] = {request_id: {} for request_id in problem_of}
    rewards = tuple(added_rewards(config.reward))
    for conversation in converse(engine, starts, verifier, on_step):
        answer = _answer(problem_of[conversation.request_id], conversation)
        groups[conversation.request_id][conversation.place] = answer
        if conversation.finish_reason in ("stop", "length"):
            _submit(verifier, (conversation.request_id, conversation.place), answer, rewards)
    verifier.on_wait = on_step
    faultless: set[tuple[str, int]] = set()
    for (request_id, place), verdicts in _verdicts(verifier).items():
        answer = groups[request_id][place]
        if not any(verdict.fault for verdict in verdicts.values()):
            faultless.add((request_id, place))
        groups[request_id][place] = replace(
            answer,
            parts=reward_parts(verdicts, answer.text, config.reward),
            rewards={name: value for v in verdicts.values() for name, value in v.parts.items()},
            notes={name: value for v in verdicts.values() for name, value in v.notes.items()},
        )
    places = [(request_id, place) for request_id, group in groups.items() for place in sorted(group)]
    if scorer is not None:
        _add_preferences(groups, [where for where in places if where in faultless], scorer, config)
    return [[group[place] for place in sorted(group)] for group in groups.values()]


def _add_preferences(
    groups: dict[str, dict[int, Answer]],
    places: Sequence[tuple[str, int]],
    scorer: RewardScorer,
    config: GRPOConfig,
) -> None:
    """Give the answers in these places the reward model's part of their reward."""
    answers = [groups[request_id][place] for request_id, place in places]
    rewards = with_preferences([(a.problem, a.text, a.parts) for a in answers], scorer, config.reward)
    for (request_id, place), answer, parts in zip(places, answers, rewards, strict=True):
        groups[request_id][place] = replace(answer, parts=parts)


def _submit(verifier: Verifier, where: tuple[str, int], answer: Answer, rewards: Sequence[str]) -> None:
    """Submit an answer to the verifier of its task, and to each added reward."""
    for name in ("accuracy", *rewards):
        verifier.submit(
            (where, name),
            answer.problem.task if name == "accuracy" else name,
            answer.problem.example,
            answer.text,
            messages=answer.messages,
            token_ids=answer.token_ids,
        )


def _verdicts(verifier: Verifier) -> dict[tuple[str, int], dict[str, Verdict]]:
    """All verdicts on each answer, by the name of the reward."""
    verdicts: dict[tuple[str, int], dict[str, Verdict]] = {}
    for verdict in verifier.results(wait=True):
        where, name = verdict.ticket
        verdicts.setdefault(where, {})[name] = verdict
    return verdicts


def _start(number: int, one: PromptedProblem, config: GRPOConfig) -> Start:
    params = SamplingParams(
        n=config.num_generations,
        temperature=config.temperature,
        max_tokens=config.max_tokens,
        token_logprobs=True,
        seed=derived_seed(config.seed, number),
        output_kind="final_only",
        skip_special_tokens=one.tools is None,
    )
    request = Request(request_id=f"problem {number}", prompt_token_ids=one.prompt.ids, sampling_params=params)
    return Start(request=request, prompt=one.prompt, tools=one.tools)


def _answer(one: PromptedProblem, conversation: Conversation) -> Answer:
    return Answer(
        problem=one.problem,
        prompt_ids=one.prompt.ids,
        token_ids=conversation.token_ids,
        logprobs=conversation.logprobs,
        is_own=conversation.is_own,
        text=conversation.text,
        messages=conversation.messages,
        is_truncated=conversation.finish_reason == "length",
        num_calls=conversation.num_calls,
        num_errors=conversation.num_errors,
        experts=conversation.experts,
    )
