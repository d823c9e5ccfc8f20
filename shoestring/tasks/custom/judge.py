"""A language model as judge: any OpenAI-compatible server grades answers by a rubric, cached, on a budget."""

import hashlib
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from shoestring.durable import cache_folder
from shoestring.errors import ConfigError, Stopped
from shoestring.remote.collector import OUT_OF_MONEY, ChatCollector, ChatReply, ChatRequest
from shoestring.remote.config import RemoteConfig, checked_url
from shoestring.tasks.answers import split_reply
from shoestring.tasks.custom.columns import read_examples
from shoestring.tasks.custom.judge_cache import JudgeCache
from shoestring.tasks.custom.judge_prompt import judge_messages, read_score, verdict_format
from shoestring.tasks.problems import in_order
from shoestring.tasks.task import BatchJudgment, BatchTask, Example, Judgment, Reply, Split

log = logging.getLogger(__name__)

CAN_CHANGE = (
    *("max_requests", "max_total_tokens", "cache"),
    *(f"remote.{name}" for name in ("cost_cap", "concurrency", "timeout_s", "attempts", "key_env")),
)
"""Settings that decide no verdict: a run that is resumed may have others."""


@dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """A judge. The same prompt, answer, rubric and model are asked once, also after a restart.

    The budgets count what is in the cache's file; at their end a run is saved and stops.
    """

    url: str
    """The server's address, mostly ending in /v1."""
    rubric: str
    """A description of a good answer and of its scores; or a .txt or .md file with it."""
    remote: RemoteConfig
    """The model there, its key, prices and cost_cap."""
    weight: float = 1.0
    """Weight of the judge's reward, from 0 to 1, among the others."""
    lowest: float = 0.0
    highest: float = 10.0
    """The judge's scores are from lowest to highest, which become rewards from 0 to 1."""
    reference: str = ""
    """The column of the data with a right answer to compare with; empty: none."""
    max_tokens: int = 1024
    """The longest verdict, thinking included."""
    max_requests: int = 0
    """Verdicts at most; 0: as many as it takes."""
    max_total_tokens: int = 0
    """Tokens at most, of prompts and verdicts together; 0: no limit."""
    cache: str = ""
    """The file of verdicts; empty: one for each judge in the user's cache folder."""

    def __post_init__(self) -> None:
        checked_url(self.url)
        if not self.remote.model:
            raise ConfigError("the judge has no model; set judge.remote.model to its name on the server")
        if not self.lowest < self.highest:
            raise ConfigError(f"the judge's lowest = {self.lowest} is not below its highest = {self.highest}")
        if self.max_tokens < 1 or min(self.max_requests, self.max_total_tokens) < 0:
            raise ConfigError("the judge's max_tokens must be at least 1, and its budgets at least 0")
        if not self.text.strip():
            raise ConfigError("the judge has no rubric; say in judge.rubric what a good answer is")

    @property
    def text(self) -> str:
        """The rubric, read if it is a file."""
        if not self.rubric.endswith((".txt", ".md")):
            return self.rubric
        try:
            return Path(self.rubric).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"cannot read the judge's rubric {self.rubric}: {error}") from None

    @property
    def digest(self) -> str:
        """A digest of all that decides verdicts, but for prompts and answers."""
        parts = [checked_url(self.url), self.remote.model, self.text, self.lowest, self.highest]
        return hashlib.sha256(json.dumps([*parts, self.remote.extra, self.max_tokens]).encode()).hexdigest()

    @property
    def cache_file(self) -> Path:
        """The file of verdicts."""
        if self.cache:
            return Path(self.cache).expanduser()
        return cache_folder("judge") / f"{self.digest[:16]}.jsonl"


@dataclass(frozen=True, kw_only=True)
class Judge(BatchTask):
    """Prompts of a data set, whose answers a judge rewards; without data, a reward for other tasks."""

    judge: JudgeConfig
    data: str = ""
    """A file, folder or data set of the hub, as for `prompts`."""
    test_data: str = ""
    columns: Mapping[str, str] = field(default_factory=dict)
    setting: str = "options.judge"
    """The name of the judge's settings in the recipe, for messages."""

    runs_here: ClassVar[bool] = True

    @property
    def name(self) -> str:
        return "judge"

    @cached_property
    def cache(self) -> JudgeCache:
        """The verdicts so far."""
        return JudgeCache(self.judge.cache_file)

    @cached_property
    def answers(self) -> "Answers":
        """The server."""
        return Answers(self.judge)

    def examples(self, split: Split, seed: int) -> Iterator[Example]:
        """The data set's prompts; see `read_examples`."""
        if not self.data:
            raise ConfigError("the task judge needs prompts: name their file or data set by the option data")
        return in_order(read_examples(self.data, self.test_data, split, self.columns), split, seed)

    def reward(self, example: Example, text: str) -> float | None:
        """The reward of one reply."""
        return self.judge_all([Reply(example=example, text=text)], {}).judgments[0].reward

    def judge_all(self, replies: Sequence[Reply], state: Mapping[str, Any]) -> BatchJudgment:
        """A verdict on each reply, asked for where the cache has none.

        `state` may have `on_wait`, a function to call while the server works. Raises Stopped when a budget
        is used up (what was paid is in the cache), ConfigError when the server refuses us, DataError when it
        fails again and again.
        """
        keys = [self._key(reply) for reply in replies]
        messages = {key: self._messages(r) for key, r in zip(keys, replies, strict=True)}
        missing = [key for key in messages if key not in self.cache.scores]
        errors = self._ask(missing, messages, state.get("on_wait", lambda: None))
        return BatchJudgment(judgments=[self._judgment(key, errors) for key in keys])

    def _ask(
        self, keys: Sequence[str], messages: Mapping[str, Any], on_wait: Callable[[], None]
    ) -> dict[str, str]:
        """Ask for verdicts within the budget and keep them; the reasons of those that did not come."""
        errors: dict[str, str] = {}
        room = self._room(len(keys))
        requests = (ChatRequest(id=key, messages=messages[key]) for key in keys[:room] if self._has_tokens())
        self.answers.collector.total_cost = self.cache.cost
        with closing(self.answers.replies(requests)) as replies:
            for reply in replies:
                on_wait()
                if reply is None:
                    continue
                if reply.fault == OUT_OF_MONEY:
                    raise self._spent(f"cost_cap of {self.judge.remote.cost_cap:g}", "remote.cost_cap")
                if reply.fault is not None:
                    errors[reply.id] = reply.fault
                    continue
                score = read_score(reply.text, lowest=self.judge.lowest, highest=self.judge.highest)
                self.cache.add(reply.id, score, tokens=reply.all_tokens, cost=reply.cost)
        if not self._has_tokens() and any(k not in self.cache.scores and k not in errors for k in keys):
            raise self._spent(f"{self.judge.max_total_tokens:,} tokens", "max_total_tokens")
        if room < len(keys):
            raise self._spent(f"{self.judge.max_requests:,} requests", "max_requests")
        return errors

    def _room(self, count: int) -> int:
        """The requests, of so many, that the budget still allows."""
        if not self.judge.max_requests:
            return count
        return min(count, max(self.judge.max_requests - self.cache.num_requests, 0))

    def _has_tokens(self) -> bool:
        """Return whether the budget of tokens, if there is one, is not used up."""
        return not self.judge.max_total_tokens or self.cache.num_tokens < self.judge.max_total_tokens

    def _spent(self, budget: str, setting: str) -> Stopped:
        return Stopped(
            f"the judge's budget of {budget} is used up (verdicts are in {self.cache.path}); "
            f"raise it by --set {self.setting}.{setting}=..."
        )

    def _judgment(self, key: str, errors: Mapping[str, str]) -> Judgment:
        score = self.cache.scores.get(key)
        if score is None:
            error = errors.get(key, "the judge gave no JSON with a score within the range")
            return Judgment(reward=None, error=f"judge: {error}")
        span = self.judge.highest - self.judge.lowest
        return Judgment(reward=(score - self.judge.lowest) / span, notes={"judge_score": score})

    def _messages(self, reply: Reply) -> tuple[dict[str, str], ...]:
        answer = reply.example.answer
        reference = answer.get(self.judge.reference, "") if isinstance(answer, dict) else answer
        return judge_messages(
            self.judge.text,
            reply.example.prompt,
            split_reply(reply.text).answer,
            str(reference) if self.judge.reference else "",
            lowest=self.judge.lowest,
            highest=self.judge.highest,
        )

    def _key(self, reply: Reply) -> str:
        data = json.dumps([self.judge.digest, self._messages(reply)])
        return hashlib.sha256(data.encode()).hexdigest()


class Answers:
    """A judge's server: verdicts by their schema where it can hold one, else by the words of the prompt."""

    def __init__(self, config: JudgeConfig) -> None:
        form = {"response_format": verdict_format(config.lowest, config.highest)}
        self._plain = config.remote
        self._with_form = replace(config.remote, extra={**form, **config.remote.extra})
        self._config = config
        self._knows_form = False
        self.collector = self._collector(self._with_form)

    def replies(self, requests: Iterator[ChatRequest]) -> Generator[ChatReply | None, None, None]:
        """Replies as they come, and None now and then; the first request finds out about the schema."""
        if not self._knows_form and (first := next(requests, None)) is not None:
            yield from self._first(first)
        if self._knows_form:
            yield from self.collector.replies(requests)

    def _first(self, request: ChatRequest) -> Iterator[ChatReply | None]:
        for reply in self.collector.replies([request]):
            is_refusal = reply is not None and (reply.fault or "").startswith("status 4")
            if is_refusal and not self._knows_form:
                log.info("the judge's server takes no schema of a verdict; it is asked without one")
                cost = self.collector.total_cost
                self.collector = self._collector(self._plain)
                self.collector.total_cost = cost
                self._knows_form = True
                yield from self.collector.replies([request])
                return
            yield reply
        self._knows_form = True

    def _collector(self, remote: RemoteConfig) -> ChatCollector:
        return ChatCollector(
            self._config.url, remote, max_tokens=self._config.max_tokens, temperature=0.0, top_p=1.0
        )
