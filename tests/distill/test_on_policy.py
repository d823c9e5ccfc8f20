"""On-policy distillation: it approaches the teacher, refuses strangers and resumes bit for bit."""

import json
import os
import signal
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from shoestring.distill import on_policy as story
from shoestring.distill.collect import problems_of
from shoestring.distill.on_policy import on_policy
from shoestring.distill.on_policy_recipe import OnPolicyConfig, OnPolicyOptim
from shoestring.distill.on_policy_run import check_vocabulary
from shoestring.errors import ConfigError, Stopped, TokenizerError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.lora import LoraConfig
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.train.report import metrics

CONFIG = OnPolicyConfig(
    steps=6,
    num_prompts=4,
    num_generations=2,
    max_tokens=8,
    warmup_steps=1,
    save_every=2,
    optim=OnPolicyOptim(lr=3e-3),
)


@pytest.fixture
def run(runtime, student_folder, teacher_folder, numbers):
    def go(out, config=CONFIG, *, teacher=teacher_folder, **options):
        problems = problems_of({"numbers": numbers()}, 5, 0)
        return on_policy(
            config,
            runtime,
            out,
            student=Checkpoint.open(student_folder),
            teacher=Checkpoint.open(teacher),
            problems=problems,
            **options,
        )

    return go


def figures(out):
    return [
        {k: v for k, v in row.items() if not k.endswith("_s")} for row in metrics.read(out / "metrics.jsonl")
    ]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    return tmp_path_factory.mktemp("unbroken") / "run"


def test_it_comes_nearer_to_the_teacher(run, unbroken):
    seen = []
    report = run(unbroken, on_step=seen.append)
    assert [row["step"] for row in seen] == [1, 2, 3, 4, 5, 6]
    assert report["kl"] < 0.8 * report["kl_at_start"]
    assert json.loads((unbroken / "report.json").read_text()) == report
    assert 0 < seen[0]["answer_tokens"] <= 8
    assert {path.name for path in (unbroken / "model").iterdir()} >= {
        "model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "README.md",
    }


def test_stopped_and_resumed_it_ends_where_an_unbroken_run_does(run, unbroken, tmp_path):
    if not unbroken.exists():
        run(unbroken)

    def interrupt(row):
        if row["step"] == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Stopped, match="step 3"):
        run(tmp_path / "run", on_step=interrupt)
    run(tmp_path / "run", resume=True)
    one, other = (load_file(out / "model" / "model.safetensors") for out in (unbroken, tmp_path / "run"))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert figures(tmp_path / "run") == figures(unbroken)
    with pytest.raises(ConfigError, match="--resume"):
        run(tmp_path / "run")


def test_a_kill_between_checkpoints_repeats_the_steps_exactly(run, unbroken, tmp_path, monkeypatch):
    if not unbroken.exists():
        run(unbroken)
    real = story.update

    def dies(*arguments):
        if len(metrics.read(tmp_path / "run" / "metrics.jsonl")) == 5:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(story, "update", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    monkeypatch.undo()
    run(tmp_path / "run", resume=True)
    assert figures(tmp_path / "run") == figures(unbroken)


def test_it_resumes_from_its_checkpoint_alone(run, unbroken, runtime, tmp_path, teacher_folder, numbers):
    if not unbroken.exists():
        run(unbroken)
    out = tmp_path / "run"
    run(out, replace(CONFIG, steps=4))
    newest = Checkpoint.open(out / "checkpoints" / "step-00000004")
    problems, teacher = problems_of({"numbers": numbers()}, 5, 0), Checkpoint.open(teacher_folder)
    on_policy(CONFIG, runtime, out, student=newest, teacher=teacher, problems=problems, resume=True)
    one, other = (load_file(path / "model" / "model.safetensors") for path in (unbroken, out))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    cards = [(path / "model" / "README.md").read_text().splitlines()[-1] for path in (unbroken, out)]
    assert cards[0] == cards[1]


def test_with_lora_it_comes_nearer_and_resumes_from_the_adapter_alone(run, tmp_path, student_folder):
    config = replace(CONFIG, lora=LoraConfig(rank=8, alpha=16.0), optim=OnPolicyOptim(lr=1e-2))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    report = run(whole, config)
    assert report["kl"] < 0.9 * report["kl_at_start"]
    run(parts, replace(config, steps=4))
    newest = parts / "checkpoints" / "step-00000004"
    assert not (newest / "model.safetensors").exists()
    assert (newest / "adapter_model.safetensors").is_file()
    run(parts, config, resume=True)
    assert figures(parts) == figures(whole)
    for name in ("adapter/adapter_model.safetensors", "model/model.safetensors"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()
    named = json.loads((parts / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(student_folder)


def test_a_tokenizer_larger_than_the_embedding_is_refused(run, oversized, tmp_path, teacher_folder):
    with pytest.raises(TokenizerError, match="the embedding has only 320 rows"):
        run(tmp_path / "run", teacher=oversized(teacher_folder))


def test_another_vocabulary_is_refused(run, model_folder, tmp_path, student_folder):
    other = model_folder(3, texts=("entirely other words in these texts, and not the same ones",))
    with pytest.raises(ConfigError, match="different vocabularies"):
        run(tmp_path / "run", teacher=other)
    own = Tokenizer.load(student_folder)
    assert check_vocabulary(own, own) == own.vocab_size


def test_one_word_that_differs_is_named(student_folder, tmp_path):
    definition = json.loads((student_folder / "tokenizer.json").read_text())
    vocabulary = definition["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(ConfigError, match=r"b'A' in one and b'B' in another|b'B' in one and b'A' in another"):
        check_vocabulary(Tokenizer.load(student_folder), Tokenizer.load(tmp_path))


def test_settings_that_cannot_be_meant(run, runtime, tmp_path, student_folder):
    with pytest.raises(ConfigError, match="steps"):
        OnPolicyConfig(steps=0)
    with pytest.raises(ConfigError, match="temperature"):
        OnPolicyConfig(temperature=-1.0)
    student = Checkpoint.open(student_folder)
    with pytest.raises(ConfigError, match="no problems"):
        on_policy(CONFIG, runtime, tmp_path, student=student, teacher=student, problems=[])
