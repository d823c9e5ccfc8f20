"""Rejection sampling: a teacher answers problems, verified and filtered answers become conversations."""

import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shoestring.distill.journal import Journal
from shoestring.distill.keep import COMPLETE, FILTERS, KeepConfig, chosen, rejection
from shoestring.distill.teachers import Teacher
from shoestring.durable import write_stream
from shoestring.engine.request import SamplingParams
from shoestring.errors import ConfigError, DataError, Stopped
from shoestring.remote.collector import OUT_OF_MONEY, ChatReply, ChatRequest
from shoestring.tasks.task import Problem, Task, distinct_examples
from shoestring.tasks.verify import MAX_FAULT_SHARE, Verifier
from shoestring.tokenizer.thinking import split_thinking
from shoestring.train.stop import StopRequest

log = logging.getLogger(__name__)

JOURNAL, CONVERSATIONS = "journal.jsonl", "conversations.jsonl"
SAY_EVERY_S = 5.0


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """How a teacher is asked, and what of its answers is kept."""

    num_generations: int = 8
    """Answers asked for to each problem."""
    max_tokens: int = 4096
    """Of one answer, thinking included; longer ones are dropped."""
    temperature: float = 0.6
    """R1's recommendation; 1.0 is more diverse."""
    top_p: float = 0.95
    seed: int = 0
    """Of the problems and, for a local teacher, of its answers."""
    system: str = ""
    """Instructions for the teacher; they are not part of what the student sees."""
    keep: KeepConfig = field(default_factory=KeepConfig)

    def __post_init__(self) -> None:
        for name in ("num_generations", "max_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        self.params()

    def params(self) -> SamplingParams:
        """For a local teacher; ConfigError naming a field that is out of its range."""
        return SamplingParams(
            max_tokens=self.max_tokens, temperature=self.temperature, top_p=self.top_p, seed=self.seed
        )


@dataclass(frozen=True, kw_only=True)
class Collected:
    """What came of it."""

    path: Path
    """The conversations: jsonl, in the order of the problems."""
    teacher: str
    problems: int
    solved: int
    """Problems with at least one conversation."""
    answers: int
    kept: int
    dropped: dict[str, int]
    """Answers by the filter that dropped them; all of FILTERS."""
    faults: dict[str, int]
    """Verdicts that the verifier could not give, by its word for why."""
    failed: int
    """Asks that the teacher did not answer in this run; resuming asks them again."""
    spent: float
    out_of_money: bool

    def figures(self) -> dict[str, Any]:
        """For a report: everything but the path."""
        return {name: value for name, value in asdict(self).items() if name != "path"}


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
) -> Collected:
    """Have each problem answered `config.num_generations` times; write what is worth learning into `out`.

    Every answer and verdict is in `out/journal.jsonl` when it comes, so what was paid for is never asked for
    again: `resume` goes on after Ctrl-C, a kill or a dead server, and filters, samples and problems may be
    others then. When the teacher's money runs out, what there is is taken. Raises Stopped (resume later),
    DataError when more than MAX_FAULT_SHARE of the verdicts are faults, and what the teacher raises.
    """
    identity = {
        "teacher": teacher.name,
        **{k: v for k, v in asdict(config).items() if k not in ("keep", "num_generations")},
    }
    with Journal(out / JOURNAL, identity, resume=resume) as journal:
        teacher.total_cost = journal.spent
        gathering = _Gathering(
            teacher=teacher,
            problems={problem.id: problem for problem in problems},
            verifier=verifier,
            config=config,
            journal=journal,
            say=say,
        )
        failures = gathering.run()
        return _write(journal, teacher, problems, config.keep, failures, out / CONVERSATIONS)


@dataclass(kw_only=True)
class _Gathering:
    """One run's way from asks to judged records."""

    teacher: Teacher
    problems: Mapping[str, Problem]
    verifier: Verifier
    config: CollectConfig
    journal: Journal
    say: Callable[[str], None]
    failures: Counter[str] = field(default_factory=Counter)
    """Asks without an answer, by their faults."""
    waiting: int = 0
    """Answers that the verifier has."""
    said_s: float = field(default_factory=time.monotonic)

    def run(self) -> Counter[str]:
        """Ask, verify, journal; the asks that failed, by their faults."""
        for number, record in enumerate(self.journal.records):
            if record.reward is None:  # never verified, or the verifier failed on it
                self._submit(number)
        with StopRequest() as stop:
            try:
                with closing(self.teacher.replies(list(self._asks()))) as answers:
                    for answer in answers:
                        if answer is not None:
                            self._take(answer)
                        self._judge(wait=False)
                        self._show()
                        if stop.is_requested:
                            raise Stopped("stopped; every answer is saved, and --resume asks for the others")
            finally:
                self.journal.charge(self.teacher.total_cost)
            while self.waiting and not stop.is_requested:
                self._judge(wait=True)
            if self.waiting:
                raise Stopped("stopped; every answer is saved, and --resume verifies the others")
        self._show(last=True)
        return self.failures

    def _asks(self) -> Iterator[ChatRequest]:
        config, counts = self.config, self.journal.counts
        system = ({"role": "system", "content": config.system},) if config.system else ()
        for id, problem in self.problems.items():
            if (have := counts[id]) < config.num_generations:
                user = {"role": "user", "content": problem.example.question}
                yield ChatRequest(
                    id=id, messages=(*system, user), n=config.num_generations - have, start=have
                )

    def _take(self, answer: ChatReply) -> None:
        if answer.fault is None:
            self._submit(self.journal.add(answer))
            return
        self.failures[answer.fault] += 1
        self.journal.charge(self.journal.spent + answer.cost)
        if self.failures[answer.fault] == 1:
            log.warning("no answer to %s: %s", answer.id, answer.fault)

    def _submit(self, number: int) -> None:
        """Have a record verified; a truncated one needs none, and one of a problem left out has to wait."""
        record = self.journal.records[number]
        problem = self.problems.get(record.id)
        if problem is not None and record.finish_reason in COMPLETE:
            self.verifier.submit(number, problem.task, problem.example, record.text)
            self.waiting += 1

    def _judge(self, *, wait: bool) -> None:
        for verdict in self.verifier.results(wait=wait):
            self.journal.judge(verdict.ticket, verdict.reward, verdict.fault)
            self.waiting -= 1
        if (share := self.verifier.fault_share()) > MAX_FAULT_SHARE:
            raise DataError(
                f"the verifier failed on {share:.1%} of the answers, more than {MAX_FAULT_SHARE:.0%} "
                f"({self.verifier.fault_counts()}); "
                "repair the task, then --resume verifies them anew"
            )

    def _show(self, *, last: bool = False) -> None:
        now = time.monotonic()
        if now - self.said_s < SAY_EVERY_S and not last:
            return
        self.said_s = now
        records = [record for record in self.journal.records if record.id in self.problems]
        right = sum((record.reward or 0.0) >= self.config.keep.reward for record in records)
        money = f", {self.teacher.total_cost:.2f} spent" if self.teacher.total_cost else ""
        total = len(self.problems) * self.config.num_generations
        self.say(f"{len(records):,} of {total:,} answers, {right:,} right{money}")


def _write(
    journal: Journal,
    teacher: Teacher,
    problems: Sequence[Problem],
    keep: KeepConfig,
    failures: Counter[str],
    path: Path,
) -> Collected:
    """Filter the records and write what is left."""
    dropped, faults = Counter(dict.fromkeys(FILTERS, 0)), Counter[str]()
    good: dict[str, dict[str, float]] = defaultdict(dict)  # text -> reward by problem, as they came
    known = {problem.id for problem in problems}
    records = [record for record in journal.records if record.id in known]
    for record in records:
        why = rejection(record.text, record.finish_reason, record.reward, keep)
        if why is None and record.text in good[record.id]:
            why = "duplicate"
        if why is None and record.reward is not None:
            good[record.id][record.text] = record.reward
        elif why is not None:
            dropped[why] += 1
        if record.fault:
            faults[record.fault] += 1
    lines, solved = [], 0
    for problem in problems:
        texts = list(good[problem.id])
        places = chosen(texts, keep)
        dropped["surplus"] += len(texts) - len(places)
        solved += bool(places)
        for place in places:
            reward = good[problem.id][texts[place]]
            lines.append(
                json.dumps(_conversation(problem, texts[place], teacher.name, reward), ensure_ascii=False)
            )
    data = "".join(f"{line}\n" for line in lines).encode()
    write_stream(path, lambda file: file.write(data), needed_bytes=len(data))
    return Collected(
        path=path,
        teacher=teacher.name,
        problems=len(problems),
        solved=solved,
        answers=len(records),
        kept=len(lines),
        dropped=dict(dropped),
        faults=dict(faults),
        failed=failures.total() - failures[OUT_OF_MONEY],
        spent=journal.spent,
        out_of_money=OUT_OF_MONEY in failures,
    )


def _conversation(problem: Problem, text: str, source: str, reward: float) -> dict[str, Any]:
    thinking, answer = split_thinking(text)
    assistant = {"role": "assistant", "content": answer}
    if thinking is not None:
        assistant["reasoning_content"] = thinking
    return {
        "messages": [{"role": "user", "content": problem.example.question}, assistant],
        "source": source,
        "task": problem.task,
        "key": problem.example.key,
        "reward": reward,
    }
