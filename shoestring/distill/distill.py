"""Distillation: a student learns a teacher's verified answers, or its probabilities."""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from shoestring import config as configs
from shoestring.data.forms.rendering import writes_thinking
from shoestring.device import Runtime
from shoestring.distill.collect import CONVERSATIONS, CollectConfig, collect, problems_of
from shoestring.distill.conversations import Collection, dropped_sentence
from shoestring.distill.mix import mix
from shoestring.distill.on_policy import on_policy
from shoestring.distill.on_policy_recipe import OnPolicyConfig
from shoestring.distill.teachers import SETTINGS, LocalTeacher, Teacher
from shoestring.durable import write_atomic
from shoestring.engine.llm import LLM
from shoestring.engine.load import load_engine
from shoestring.errors import ConfigError, DataError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.named import open_model
from shoestring.model.presets import PRESETS
from shoestring.remote.collector import ChatCollector
from shoestring.remote.config import RemoteConfig, checked_url
from shoestring.rows.source import data_files
from shoestring.tasks.load import load_task
from shoestring.tasks.task import Problem
from shoestring.tasks.verify import Verifier
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.thinking import has_tags
from shoestring.train import checkpoint
from shoestring.train.runs.lock import run_lock
from shoestring.train.runs.recipe import check_tags
from shoestring.train.runs.trainable import open_trainable
from shoestring.train.sft import sft
from shoestring.train.sft_recipe import SFTConfig
from shoestring.train.tuning import open_start

log = logging.getLogger(__name__)

FIGURES = "collected.json"
"""The figures of a finished collection."""
MODEL_FILES = (
    *("*.safetensors", "config.json", "adapter_config.json"),
    *("tokenizer.json", "chat_template.jinja"),
)
"""Files that decide a local teacher's answers."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """A distillation run (DeepSeek-R1, arXiv 2501.12948, section 2.4)."""

    teacher: str
    """A folder, org/name, MODEL+ADAPTER, or the http(s) address of an OpenAI-compatible server."""
    student: str
    """The model to fine-tune: a folder, a hub name, or a preset's name (random weights)."""
    method: Literal["answers", "on_policy"] = "answers"
    """Fine-tune on the teacher's answers, or learn its probabilities of the student's own answers."""
    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Sources of problems: task name -> its options."""
    problems: int = 1000
    """Problems of each task."""
    thinking: bool | None = None
    """Whether a local teacher's chat template asks for thinking; None: its default."""
    workers: int = 1
    """Processes that verify answers, for tasks whose rewards run in child processes."""
    verify_timeout_s: float = 10.0
    general: tuple[str, ...] = ()
    """Other conversations to mix in, so that the student forgets less: files, folders, or org/name."""
    general_ratio: float = 3.0
    """Verified conversations for each general one (R1: 600k to 200k)."""
    collect: CollectConfig = field(default_factory=CollectConfig)
    remote: RemoteConfig = field(default_factory=RemoteConfig)
    """For a teacher behind a server."""
    sft: dict[str, Any] = field(default_factory=dict)
    """Fields of SFTConfig, without `model` (the student) and `data` (the collected answers)."""
    on_policy: OnPolicyConfig = field(default_factory=OnPolicyConfig)
    note: str = ""
    """A text about the run, for whoever looks at it later."""
    tags: tuple[str, ...] = ()
    """Words by which runs are found and compared."""

    def __post_init__(self) -> None:
        check_tags(self.tags)
        if self.method not in ("answers", "on_policy"):
            raise ConfigError(f"method = {self.method!r} is neither answers nor on_policy")
        if not self.teacher or not self.student:
            raise ConfigError("distillation needs a teacher and a student; name both")
        if not self.tasks:
            raise ConfigError("tasks is empty; name a task with problems for the teacher")
        for name in ("problems", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)} must be at least 1")
        if not self.verify_timeout_s > 0 or not self.general_ratio > 0:
            raise ConfigError("verify_timeout_s and general_ratio must be over 0")
        if wrong := [name for name in ("model", "start", "data") if name in self.sft]:
            raise ConfigError(f"sft.{wrong[0]} is decided by the distillation; leave it out")
        if self.is_remote:
            checked_url(self.teacher)
        if self.is_remote and self.collect.overlong == "truncate":
            raise ConfigError(
                'collect.overlong = "truncate" needs the teacher\'s tokenizer, which a server keeps; '
                "--set collect.overlong=filter leaves out what does not fit there"
            )
        if self.is_remote and self.method == "on_policy":
            raise ConfigError(
                "on-policy distillation needs the teacher's weights; a server gives only its words"
            )

    @property
    def is_remote(self) -> bool:
        return self.teacher.startswith(("http://", "https://"))

    def sft_config(self, data: Path, tokenizer: str) -> SFTConfig:
        """The student's fine-tuning; ConfigError for a wrong name or value."""
        settings = {"model": self.student, "data": (str(data),), **self.sft}
        if self.student in PRESETS:
            settings.setdefault("tokenizer", tokenizer)
            if not settings["tokenizer"]:
                raise ConfigError(
                    f"student = {self.student!r} has no tokenizer; name a folder as sft.tokenizer"
                )
        return configs.build(SFTConfig, settings, where="sft")


def distill(
    config: DistillConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool = False,
    quiet: bool = False,
    say: Callable[[str], None] = log.info,
) -> dict[str, Any]:
    """Distill in folder `out`; returns the report, which is also in report.json.

    `out/collected` has the teacher's answers, `out/student` the training, and its `model` is the result, with
    the teacher and the figures of its answers in the model card. `resume` continues a run that was stopped.
    Raises Stopped (resume later), DataError if no answer passed the filters, and what training raises.
    """
    with run_lock(out):
        return _distill(config, runtime, out, resume=resume, quiet=quiet, say=say)


def _distill(
    config: DistillConfig,
    runtime: Runtime,
    out: Path,
    *,
    resume: bool,
    quiet: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Collect, train and report, in a folder that no other process uses."""
    if not resume and (out / "config.toml").exists():
        raise ConfigError(f"{out} already holds a run; --resume continues it, another --out starts anew")
    is_over = config.method == "answers" and (out / FIGURES).exists() and config.student not in PRESETS
    local = None if config.is_remote or is_over else open_model(config.teacher)
    data = out / "collected" / CONVERSATIONS
    tokenizer = "" if local is None else str(local.tokenizer_folder)
    if local is not None:
        config = _with_thinking(config, local.tokenizer)
    for source in config.general:
        data_files(source)  # raises for one that is not there before the teacher works
    if config.method == "on_policy":
        _student(config, out / "student", resume=resume)
    elif not (out / "student" / "config.toml").exists():
        _check_student(config, config.sft_config(data, tokenizer), out / "student", say)
    write_atomic(out / "config.toml", configs.dumps(config))
    name = "" if is_over else _teacher_name(config, local)  # a finished collection has it
    if config.method == "on_policy":
        assert local is not None  # DistillConfig refuses a server
        collection: dict[str, Any] = {"teacher": name, "problems": config.problems}
        figures = _train_on_policy(config, runtime, out / "student", teacher=local, resume=resume, say=say)
    else:
        collection = _collect(config, runtime, out, local=local, name=name, say=say)
        if config.general:
            conversations, data = data, data.with_name("mixed.jsonl")
            ratio, seed = config.general_ratio, config.collect.seed
            collection["mixed"] = mix([conversations], config.general, data, ratio=ratio, seed=seed)
        is_started = (out / "student" / "config.toml").exists()
        sft_config = config.sft_config(data, tokenizer)
        figures = sft(sft_config, runtime, out / "student", resume=is_started, quiet=quiet)
    add_lineage(out / "student" / "model", lineage(collection, config.method))
    report = {
        "method": config.method,
        "student": config.student,
        "collected": collection,
        "training": figures,
    }
    write_atomic(out / "report.json", json.dumps(report, indent=2) + "\n")
    return report


def _with_thinking(config: DistillConfig, tokenizer: Tokenizer) -> DistillConfig:
    """The recipe with the filter for thinking that fits a teacher of this machine."""
    if config.collect.keep.thinking is not None:
        return config
    keep = replace(config.collect.keep, thinking=has_tags(tokenizer) and config.thinking is not False)
    return replace(config, collect=replace(config.collect, keep=keep))


def _check_student(
    config: DistillConfig, sft_config: SFTConfig, out: Path, say: Callable[[str], None]
) -> None:
    """Raise what the student's fine-tuning would, before an answer of the teacher is paid for."""
    start = open_start(sft_config, out, None)
    if start.seq_len < config.collect.max_tokens:
        say(
            f"answers may have {config.collect.max_tokens:,} tokens, the student reads {start.seq_len:,}; "
            f"longer ones are left out; --set collect.max_tokens={start.seq_len} asks for shorter ones"
        )
    template = start.files.template
    may_think = config.collect.keep.thinking is not False
    if may_think and not writes_thinking(template, learn=sft_config.learn, thinking=sft_config.thinking):
        raise ConfigError(
            f"the student's {template.name} does not write the thinking of answers, which would be lost; "
            "--set sft.thinking=inline writes it into the content, --set sft.template=FILE takes another, "
            "and --set collect.keep.thinking=false is for a teacher that does not think"
        )


def _collect(
    config: DistillConfig,
    runtime: Runtime,
    out: Path,
    *,
    local: Checkpoint | None,
    name: str,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Collect the teacher's answers and return the figures; a finished collection is not repeated."""
    path = out / FIGURES
    if path.exists():
        figures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return figures
    tasks = {name: load_task(name, options) for name, options in config.tasks.items()}
    with Verifier(tasks, workers=config.workers, timeout_s=config.verify_timeout_s) as verifier:
        teacher = _teacher(config, runtime, local, name)
        problems, folder = _problems(config), out / "collected"
        collection = collect(
            teacher, problems, verifier, config.collect, folder, resume=folder.exists(), say=say
        )
    if not collection.num_conversations:
        raise DataError(_no_conversations(collection))
    sizes = {"max_tokens": config.collect.max_tokens, "num_generations": config.collect.num_generations}
    if sentence := dropped_sentence(collection, **sizes):
        log.warning("%s", sentence)
    write_atomic(path, json.dumps(collection.figures(), indent=2) + "\n")
    return collection.figures()


def _train_on_policy(
    config: DistillConfig,
    runtime: Runtime,
    out: Path,
    *,
    teacher: Checkpoint,
    resume: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """On-policy distillation of the student."""

    def show(row: Mapping[str, Any]) -> None:
        say(f"step {row['step']:,} of {config.on_policy.steps:,}: KL {row['kl']:.4f} nats a token")

    return on_policy(
        config.on_policy,
        runtime,
        out,
        student=_student(config, out, resume=resume),
        teacher=teacher,
        problems=_problems(config),
        resume=resume and (out / "checkpoints").exists(),
        on_step=show,
    )


def _student(config: DistillConfig, out: Path, *, resume: bool) -> Checkpoint:
    """The weights to train: the newest checkpoint of the training in `out`, else the model to start from."""
    newest = checkpoint.latest(out / "checkpoints") if resume else None
    lora = config.on_policy.lora
    if config.method == "answers":
        lora = config.sft_config(out, str(out)).lora
    return open_trainable(config.student, lora, newest)


def _problems(config: DistillConfig) -> list[Problem]:
    tasks = {name: load_task(name, options) for name, options in config.tasks.items()}
    return problems_of(tasks, config.problems, config.collect.seed)


def _teacher(config: DistillConfig, runtime: Runtime, local: Checkpoint | None, name: str) -> Teacher:
    settings = config.collect
    if local is None:
        return ChatCollector(
            config.teacher,
            config.remote,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )
    llm = LLM.of(load_engine(local, runtime, settings=SETTINGS), local)
    return LocalTeacher(
        llm, name, params=settings.params(), thinking=config.thinking, overlong=settings.overlong
    )


def _teacher_name(config: DistillConfig, local: Checkpoint | None) -> str:
    """The teacher's identity: model and address, or its name with a hash of its files."""
    if local is None:
        return f"{config.remote.model} at {checked_url(config.teacher)}"
    return f"{config.teacher} (sha256 {folder_sha256(local.folder, *local.adapters)[:16]})"


def folder_sha256(*folders: Path) -> str:
    """One hash of the weights, config, tokenizer and template of a model and adapters: names and contents."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)}):
            with open(path, "rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def lineage(collection: Mapping[str, Any], method: str) -> str:
    """The student's origin, in Markdown, for its model card; `collection` has the names of the report."""
    lines = ["## Distillation", "", f"Teacher: {collection['teacher']}."]
    if method == "on_policy":
        return "\n".join([*lines, "It was followed by reverse KL on the student's own answers.", ""])
    lines.append(
        f"{collection['answers']:,} answers to {collection['problems']:,} problems; "
        f"{collection['kept']:,} kept ({collection['solved']:,} problems), all verified. "
        f"Dropped: {_counts(collection['dropped']) or 'none'}."
    )
    if "mixed" in collection:
        lines.append(f"Mixed with {collection['mixed']['general']:,} general conversations.")
    return "\n".join([*lines, ""])


def add_lineage(folder: Path, text: str) -> None:
    """Append a text to the model card in a folder, once."""
    card = folder / "README.md"
    before = card.read_text(encoding="utf-8") if card.is_file() else ""
    if text not in before:
        write_atomic(card, f"{before.rstrip()}\n\n{text}".lstrip())


def _no_conversations(collection: Collection) -> str:
    reasons = _counts(collection.rejections) or "there were none"
    money = "; the cost cap was reached" if collection.out_of_money else ""
    return (
        f"none of {collection.num_answers:,} answers of {collection.teacher} was kept ({reasons}){money}; "
        "see collected/journal.jsonl, then change collect.keep, the task or the teacher, and --resume"
    )


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
