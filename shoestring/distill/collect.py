"""Rejection sampling: a teacher answers problems, and verified answers that pass filters are written."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from shoestring.distill.conversations import Collection, write_conversations
from shoestring.distill.journal import Journal
from shoestring.distill.keep import COMPLETE, KeepConfig
from shoestring.distill.teachers import Teacher
from shoestring.engine.request import SamplingParams
from shoestring.errors import ConfigError, DataError, Stopped
from shoestring.remote.collector import OUT_OF_MONEY, ChatReply, ChatRequest
from shoestring.tasks.task import Problem, Task, distinct_examples
from shoestring.tasks.verify import MAX_FAULT_SHARE, Verifier
from shoestring.tokenizer.overlong import OVERLONG, Overlong
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)

JOURNAL, CONVERSATIONS = "journal.jsonl", "conversations.jsonl"
PROGRESS_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Sampling of a teacher's answers, and the filters for them."""

    num_generations: int = 8
    """Answers to each problem."""
    max_tokens: int = 4096
    """Longest answer, thinking included; longer ones are dropped."""
    temperature: float = 0.6
    """R1's recommendation; 1.0 gives more diverse answers."""
    top_p: float = 0.95
    seed: int = 0
    """Seed of the problems and of a local teacher's answers."""
    overlong: Overlong = "filter"
    """Problems whose prompts do not fit into the teacher's context: filter (leave out, count), truncate or
    error."""
    system: str = ""
    """Instructions for the teacher; they are not part of the student's conversations."""
    keep: KeepConfig = field(default_factory=KeepConfig)

    def __post_init__(self) -> None:
        for name in ("num_generations", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        self.params()

    def params(self) -> SamplingParams:
        """Sampling of a local teacher; ConfigError naming a field that is out of its range."""
        return SamplingParams(
            max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed
        )


def problems_of(tasks: Mapping[str, Task], count: int, seed: int) -> list[Problem]:
    """The first `count` different training problems of each task, fewer where a task has no more."""
    return [
        Problem(task=name, example=example)
        for name, task in tasks.items()
        for example in distinct_examples(task, "train", seed, count)
    ]


def collect(
    teacher: Teacher,
    problems: Sequence[Problem],
    verifier: Verifier,
    config: CollectConfig,
    out: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = log.info,
) -> Collection:
    """Have each problem answered `num_generations` times; write what is worth learning into folder `out`.

    Every answer and verdict goes to `out/journal.jsonl` as it comes, so that no answer is requested or paid
    twice: `resume` continues after Ctrl-C, a kill or a server's failure, and filters, number of answers and
    problems may then differ. When the budget is used up, the answers so far count. Raises Stopped (resume
    later), DataError when more than 1% of the verdicts are faults, and what the teacher raises.
    """
    others = ("keep", "num_generations", *(() if config.overlong == "truncate" else ("overlong",)))
    identity = {
        "teacher": teacher.name,
        **{k: v for k, v in asdict(config).items() if k not in others},
    }
    with Journal(out / JOURNAL, identity, resume=resume) as journal:
        teacher.total_cost = journal.cost
        collector = _Collector(
            teacher=teacher,
            problems={problem.id: problem for problem in problems},
            verifier=verifier,
            config=config,
            journal=journal,
            say=say,
        )
        failures = collector.run()
        collection = write_conversations(
            journal, problems, config.keep, out / CONVERSATIONS, teacher=teacher.name
        )
    return replace(
        collection,
        num_failures=failures.total() - failures[OUT_OF_MONEY] - failures[OVERLONG],
        num_overlong=failures[OVERLONG],
        out_of_money=OUT_OF_MONEY in failures,
    )


@dataclass(kw_only=True)
class _Collector:
    """Requests answers, has them verified, and records both in the journal."""

    teacher: Teacher
    problems: Mapping[str, Problem]
    verifier: Verifier
    config: CollectConfig
    journal: Journal
    say: Callable[[str], None]
    failures: Counter[str] = field(default_factory=Counter)
    """Requests without an answer, by their fault."""
    num_unverified: int = 0
    """Answers that the verifier is working on."""
    last_progress_s: float = field(default_factory=time.monotonic)

    def run(self) -> Counter[str]:
        """Request and verify all that is missing; returns the failed requests, by their fault."""
        for number, record in enumerate(self.journal.records):
            if record.reward is None:  # never verified, or the verifier failed on it
                self._verify(number)
        with StopRequest() as stop:
            try:
                with closing(self.teacher.replies(list(self._requests()))) as replies:
                    for reply in replies:
                        if reply is not None:
                            self._receive(reply)
                        self._record_verdicts(wait=False)
                        self._show_progress()
                        if stop.is_requested:
                            raise Stopped("stopped; every answer is saved, and --resume requests the others")
            finally:
                self.journal.charge(self.teacher.total_cost)
            while self.num_unverified and not stop.is_requested:
                self._record_verdicts(wait=True)
            if self.num_unverified:
                raise Stopped("stopped; every answer is saved, and --resume verifies the others")
        self._show_progress(last=True)
        return self.failures

    def _requests(self) -> Iterator[ChatRequest]:
        """A request for the missing answers to each problem."""
        config = self.config
        system = ({"role": "system", "content": config.system},) if config.system else ()
        for id, problem in self.problems.items():
            num_answers = self.journal.counts[id]
            if num_answers < config.num_generations:
                turns = problem.example.turns
                messages = turns if turns[0]["role"] == "system" else (*system, *turns)
                num_missing = config.num_generations - num_answers
                yield ChatRequest(id=id, messages=messages, n=num_missing, start=num_answers)

    def _receive(self, reply: ChatReply) -> None:
        if reply.fault is None:
            self._verify(self.journal.add(reply))
            return
        if reply.fault == OVERLONG and self.config.overlong == "error":
            raise DataError(
                f"the prompt of {reply.id} does not fit into the context of {self.teacher.name}; "
                "--set collect.overlong=filter leaves such problems out"
            )
        self.failures[reply.fault] += 1
        self.journal.charge(self.journal.cost + reply.cost)
        if self.failures[reply.fault] == 1:
            log.warning("no answer to %s: %s", reply.id, reply.fault)

    def _verify(self, number: int) -> None:
        """Have a record verified, unless it is truncated or its problem is not part of this collection."""
        record = self.journal.records[number]
        problem = self.problems.get(record.id)
        if problem is not None and record.finish_reason in COMPLETE:
            self.verifier.submit(number, problem.task, problem.example, record.text)
            self.num_unverified += 1

    def _record_verdicts(self, *, wait: bool) -> None:
        for verdict in self.verifier.results(wait=wait):
            self.journal.judge(verdict.ticket, verdict.reward, verdict.fault)
            self.num_unverified -= 1
        if (share := self.verifier.fault_share()) > MAX_FAULT_SHARE:
            raise DataError(
                f"the verifier failed on {share:.1%} of the answers, more than {MAX_FAULT_SHARE:.0%} "
                f"({self.verifier.fault_counts()}); repair the task, then --resume verifies them anew"
            )

    def _show_progress(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self.last_progress_s < PROGRESS_EVERY_S and not last:
            return
        self.last_progress_s = now
        records = [record for record in self.journal.records if record.id in self.problems]
        num_right = sum((record.reward or 0.0) >= self.config.keep.reward for record in records)
        money = f", {self.teacher.total_cost:.2f} spent" if self.teacher.total_cost else ""
        total = len(self.problems) * self.config.num_generations
        self.say(f"{len(records):,} of {total:,} answers, {num_right:,} right{money}")
