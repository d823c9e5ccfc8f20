"""Conversations to learn from: a collection's answers filtered, selected and written, and its figures."""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.distill.journal import Journal
from shoestring.distill.keep import FILTERS, KeepConfig, rejection, select
from shoestring.durable import write_stream
from shoestring.tasks.task import Problem
from shoestring.tokenizer.overlong import WARN_FROM, WARN_SHARE
from shoestring.tokenizer.thinking import split_thinking


@dataclass(frozen=True, kw_only=True)
class Collection:
    """The result of a collection."""

    path: Path
    """The conversations: jsonl, in the order of the problems."""
    teacher: str
    num_problems: int
    num_solved: int
    """Problems with at least one conversation."""
    num_answers: int
    num_conversations: int
    rejections: dict[str, int]
    """Answers by the filter that rejected them; all of FILTERS."""
    faults: dict[str, int]
    """Answers without a verdict, by the verifier's fault."""
    num_failures: int = 0
    """Requests that the teacher did not answer in this run; resuming repeats them."""
    num_overlong: int = 0
    """Problems that do not fit into the teacher's context."""
    cost: float = 0.0
    """Money for all requests so far."""
    out_of_money: bool = False

    def figures(self) -> dict[str, Any]:
        """Everything but the path, by the names in reports."""
        return {
            "teacher": self.teacher,
            "problems": self.num_problems,
            "solved": self.num_solved,
            "answers": self.num_answers,
            "kept": self.num_conversations,
            "dropped": self.rejections,
            "faults": self.faults,
            "failed": self.num_failures,
            "overlong": self.num_overlong,
            "spent": self.cost,
            "out_of_money": self.out_of_money,
        }


WAYS_TO_KEEP = {
    "truncated": "--set collect.max_tokens={twice} lets them be longer",
    "format": "--set collect.keep.thinking=false keeps answers of any form",
    "language": "--set collect.keep.language_share=0 keeps every language",
    "long": "--set collect.keep.max_characters=0 keeps any length",
    "looping": "--set collect.keep.loop_characters=0 keeps repetitions",
    "duplicate": "--set collect.temperature=1 makes answers differ",
    "surplus": "--set collect.keep.per_problem={generations} keeps all right ones",
}
"""The setting that changes each filter; a wrong answer stays wrong."""


def dropped_sentence(collection: Collection, *, max_tokens: int, num_generations: int) -> str:
    """The answers that filters dropped, with the setting for each; empty for a tenth of them at most."""
    counts = {name: count for name, count in collection.rejections.items() if count}
    total = sum(counts.values())
    if total <= WARN_SHARE * max(collection.num_answers, WARN_FROM):
        return ""
    numbers = {"twice": 2 * max_tokens, "generations": num_generations}
    parts = [
        f"{count:,} {name}" + (f" ({WAYS_TO_KEEP[name].format(**numbers)})" if name in WAYS_TO_KEEP else "")
        for name, count in counts.items()
    ]
    share = total / collection.num_answers
    return (
        f"{total:,} of {collection.num_answers:,} answers ({share:.0%}) are not learned: {', '.join(parts)}"
    )


def write_conversations(
    journal: Journal, problems: Sequence[Problem], config: KeepConfig, path: Path, *, teacher: str
) -> Collection:
    """Write the answers that pass the filters as conversations; those to other problems are left out."""
    ids = {problem.id for problem in problems}
    records = [record for record in journal.records if record.id in ids]
    rejections, faults = Counter(dict.fromkeys(FILTERS, 0)), Counter[str]()
    rewards: dict[str, dict[str, float]] = defaultdict(dict)  # by problem and text, as they came
    for record in records:
        reason = rejection(record.text, record.finish_reason, record.reward, config)
        if reason is None and record.text in rewards[record.id]:
            reason = "duplicate"
        if reason is None and record.reward is not None:
            rewards[record.id][record.text] = record.reward
        elif reason is not None:
            rejections[reason] += 1
        if record.fault:
            faults[record.fault] += 1
    conversations = []
    num_solved = 0
    for problem in problems:
        texts = list(rewards[problem.id])
        places = select(texts, config)
        rejections["surplus"] += len(texts) - len(places)
        num_solved += bool(places)
        for place in places:
            reward = rewards[problem.id][texts[place]]
            conversations.append(_conversation(problem, texts[place], teacher, reward))
    _write(conversations, path)
    return Collection(
        path=path,
        teacher=teacher,
        num_problems=len(problems),
        num_solved=num_solved,
        num_answers=len(records),
        num_conversations=len(conversations),
        rejections=dict(rejections),
        faults=dict(faults),
        cost=journal.cost,
    )


def _write(conversations: Sequence[dict[str, Any]], path: Path) -> None:
    lines = [json.dumps(conversation, ensure_ascii=False) + "\n" for conversation in conversations]
    data = "".join(lines).encode()
    write_stream(path, lambda file: file.write(data), needed_bytes=len(data))


def _conversation(problem: Problem, text: str, source: str, reward: float) -> dict[str, Any]:
    thinking, answer = split_thinking(text)
    assistant = {"role": "assistant", "content": answer}
    if thinking is not None:
        assistant["reasoning_content"] = thinking
    return {
        "messages": [*problem.example.turns, assistant],
        "source": source,
        "task": problem.task,
        "key": problem.example.key,
        "reward": reward,
    }
