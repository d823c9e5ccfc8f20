"""Distillation as a whole: local and remote teachers, resumption, and what the student's card says."""

import json
import os
import shutil
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from safetensors.torch import load_file

from shoestring import config as configs
from shoestring.distill.collect import CollectConfig
from shoestring.distill.distill import DistillConfig, add_lineage, distill, folder_sha256
from shoestring.distill.keep import KeepConfig
from shoestring.distill.on_policy_recipe import OnPolicyConfig
from shoestring.errors import ConfigError, DataError, ShoestringError, Stopped
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.hf.peft import save_adapter
from shoestring.model.lora import LoraConfig, add_adapters
from shoestring.tasks.load import load_task
from shoestring.train import finish
from shoestring.train import sft as training

SFT = {
    "epochs": 1.0,
    "batch_tokens": 400,
    "micro_tokens": 400,
    "seq_len": 256,
    "save_every": 2,
    "eval_every": 100,
}
PLAIN = (
    "{% for m in messages %}{{ m.role + ':' + m.content + '<｜end▁of▁sentence｜>' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""A template that never writes thinking."""
ANYTHING = CollectConfig(num_generations=4, max_tokens=60, keep=KeepConfig(reward=0.0, thinking=False))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Neither the machine is measured nor a picture drawn."""
    monkeypatch.setattr(training, "measure_peak", lambda _: 1e9)
    monkeypatch.setattr(finish.curves, "draw", lambda *_, **__: None)


@pytest.fixture(scope="module")
def knows():
    """The right answers to arithmetic's problems."""
    examples = load_task("arithmetic").examples("train", 0)
    return {e.question: str(e.answer) for e, _ in zip(examples, range(200), strict=False)}


@pytest.fixture
def server(knows):
    """A server that answers two of three questions rightly: its URL, and what it was asked."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            question = body["messages"][-1]["content"]
            asked.append(question)
            number = list(knows).index(question)
            answer = knows[question] if number % 3 else "no idea"
            message = {"content": answer, "reasoning_content": f"it is {answer}, try {len(asked)}"}
            usage = {"prompt_tokens": 10, "completion_tokens": 20}
            reply = {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running.daemon_threads = True
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_address[1]}/v1", asked
    running.shutdown()
    running.server_close()


@pytest.fixture
def remote_config(server, student_folder):
    def make(**changes):
        data = {
            "teacher": server[0],
            "student": str(student_folder),
            "tasks": {"arithmetic": {}},
            "problems": 12,
            "remote": {"model": "big", "price_in": 1.0, "price_out": 2.0, "cost_cap": 1.0},
            "collect": {"num_generations": 2, "max_tokens": 100},
            "sft": SFT,
        }
        return configs.build(DistillConfig, data | changes)

    return make


def test_a_remote_teachers_right_answers_reach_the_student(remote_config, runtime, tmp_path, server, knows):
    out = tmp_path / "run"
    report = distill(remote_config(), runtime, out, quiet=True)
    collected = report["collected"]
    assert collected["teacher"] == f"big at {server[0]}"
    assert (collected["answers"], collected["kept"], collected["dropped"]["wrong"]) == (24, 16, 8)
    assert collected["spent"] == pytest.approx(24 * 50e-6)
    assert report["training"]["conversations"] == 16
    rows = [json.loads(line) for line in (out / "collected" / "conversations.jsonl").read_text().splitlines()]
    assert all(row["messages"][1]["content"] == knows[row["messages"][0]["content"]] for row in rows)
    card = (out / "student" / "model" / "README.md").read_text()
    assert f"Teacher: big at {server[0]}." in card
    assert "24 answers to 12 problems; 16 kept (8 problems), all verified. Dropped: 8 wrong." in card
    assert card.startswith("---\n")
    assert json.loads((out / "report.json").read_text()) == report
    asked = len(server[1])
    assert distill(remote_config(), runtime, out, resume=True, quiet=True)["collected"] == collected
    assert len(server[1]) == asked
    with pytest.raises(ConfigError, match="--resume"):
        distill(remote_config(), runtime, out, quiet=True)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sft": SFT | {"seq_len": 9999}}, r"--set seq_len=\d+ is the longest"),
        ({"sft": SFT | {"template": "/nowhere"}}, "/nowhere"),
        ({"sft": SFT | {"tokenizer": "/nowhere"}}, "/nowhere"),
        ({"sft": SFT | {"template": "PLAIN"}}, "--set sft.thinking=inline writes it into the content"),
        ({"student": "no/where/at/all"}, "no/where"),
        ({"student": "r1-mini"}, "sft.tokenizer"),
    ],
)
def test_a_student_that_cannot_learn_is_named_before_an_answer_is_paid_for(
    remote_config, runtime, tmp_path, server, monkeypatch, changes, words
):
    (tmp_path / "PLAIN").write_text(PLAIN)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ShoestringError, match=words):
        distill(remote_config(**changes), runtime, tmp_path / "run", quiet=True)
    assert server[1] == []


def test_a_student_whose_template_writes_no_thinking_learns_it_inline(
    remote_config, runtime, tmp_path, knows
):
    (tmp_path / "plain.jinja").write_text(PLAIN)
    config = remote_config(sft=SFT | {"template": str(tmp_path / "plain.jinja"), "thinking": "inline"})
    distill(config, runtime, tmp_path / "run", quiet=True)
    manifest = json.loads((tmp_path / "run" / "student" / "data.json").read_text())
    assert manifest["files"][0]["learned_tokens"] > 15 * manifest["files"][0]["conversations"]


def test_a_preset_takes_the_vocabulary_of_the_tokenizer(
    remote_config, runtime, tmp_path, student_folder, server
):
    config = remote_config(student="tiny", sft=SFT | {"tokenizer": str(student_folder)})
    distill(config, runtime, tmp_path / "run", quiet=True)
    own = Checkpoint.open(tmp_path / "run" / "student" / "model")
    assert own.config.vocab_size == Checkpoint.open(student_folder).tokenizer.vocab_size > 256


def test_a_student_that_reads_less_than_answers_may_have_is_said(remote_config, runtime, tmp_path):
    said = []
    config = remote_config(collect={"num_generations": 1, "max_tokens": 600}, problems=2)
    distill(config, runtime, tmp_path / "run", quiet=True, say=said.append)
    assert any("--set collect.max_tokens=256" in line for line in said)


def test_stopped_in_the_training_it_goes_on_there(remote_config, runtime, tmp_path, server, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    config = remote_config(sft=SFT | {"batch_tokens": 60})
    distill(config, runtime, whole, quiet=True)
    (cut / "collected").mkdir(parents=True)
    journal = (whole / "collected" / "journal.jsonl").read_bytes()
    (cut / "collected" / "journal.jsonl").write_bytes(journal)  # the same answers: the server counts its own
    real, calls = training.train_step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments)

    monkeypatch.setattr(training, "train_step", interrupted)
    with pytest.raises(Stopped, match="step 2"):
        distill(config, runtime, cut, quiet=True)
    distill(config, runtime, cut, resume=True, quiet=True)
    one, other = (load_file(out / "student" / "model" / "model.safetensors") for out in (whole, cut))
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert "Teacher" in (cut / "student" / "model" / "README.md").read_text()


def test_the_cost_cap_ends_the_collection_and_the_student_learns_what_there_is(
    remote_config, runtime, tmp_path
):
    remote = {"model": "big", "price_in": 1.0, "price_out": 2.0, "cost_cap": 1.5e-3, "concurrency": 2}
    report = distill(remote_config(remote=remote), runtime, tmp_path / "run", quiet=True)
    assert report["collected"]["out_of_money"]
    assert 0 < report["collected"]["answers"] < 24
    assert report["collected"]["spent"] <= 1.5e-3


def test_a_local_teacher_is_named_by_its_hash(runtime, tmp_path, teacher_folder, student_folder):
    config = DistillConfig(
        teacher=str(teacher_folder),
        student=str(student_folder),
        tasks={"arithmetic": {}},
        problems=20,
        collect=ANYTHING,
        sft=SFT,
        general=(str(tmp_path / "general.jsonl"),),
    )
    line = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})
    (tmp_path / "general.jsonl").write_text((line + "\n") * 2)
    report = distill(config, runtime, tmp_path / "run", quiet=True)
    digest = folder_sha256(teacher_folder)[:16]
    assert report["collected"]["teacher"] == f"{teacher_folder} (sha256 {digest})"
    assert report["collected"]["kept"] > 5
    assert report["collected"]["mixed"] == {"verified": report["collected"]["kept"], "general": 2}
    assert report["training"]["conversations"] == report["collected"]["kept"] + 2


def test_on_policy(runtime, tmp_path, teacher_folder, student_folder):
    config = DistillConfig(
        teacher=str(teacher_folder),
        student=str(student_folder),
        method="on_policy",
        tasks={"arithmetic": {}},
        problems=8,
        on_policy=OnPolicyConfig(steps=2, num_prompts=2, num_generations=2, max_tokens=6),
    )
    said = []
    report = distill(config, runtime, tmp_path / "run", say=said.append)
    assert report["training"]["steps"] == 2
    assert len(said) == 2
    card = (tmp_path / "run" / "student" / "model" / "README.md").read_text()
    assert "reverse KL" in card
    assert folder_sha256(teacher_folder)[:16] in card
    assert distill(config, runtime, tmp_path / "run", resume=True)["training"]["steps"] == 2


@pytest.mark.parametrize("method", ["answers", "on_policy"])
def test_a_teacher_may_have_an_adapter(runtime, tmp_path, teacher_folder, student_folder, method):
    model = load_model(Checkpoint.open(teacher_folder))
    add_adapters(model, LoraConfig(rank=2), torch.Generator().manual_seed(1))
    save_adapter(model, tmp_path / "adapter", base=str(teacher_folder))
    config = DistillConfig(
        teacher=f"{teacher_folder}+{tmp_path / 'adapter'}",
        student=str(student_folder),
        method=method,
        tasks={"arithmetic": {}},
        problems=8,
        collect=ANYTHING,
        sft=SFT,
        on_policy=OnPolicyConfig(steps=1, num_prompts=2, num_generations=2, max_tokens=6),
    )
    report = distill(config, runtime, tmp_path / "run", quiet=True)
    digest = folder_sha256(teacher_folder, tmp_path / "adapter")[:16]
    assert report["collected"]["teacher"] == f"{config.teacher} (sha256 {digest})"
    assert digest != folder_sha256(teacher_folder)[:16]


@pytest.mark.parametrize("method", ["answers", "on_policy"])
def test_a_run_goes_on_without_what_it_began_with(runtime, tmp_path, teacher_folder, student_folder, method):
    """Its checkpoint holds the student; collected answers need no teacher, its probabilities do."""
    for name, folder in (("teacher", teacher_folder), ("student", student_folder)):
        shutil.copytree(folder, tmp_path / name)
    config = DistillConfig(
        teacher=str(tmp_path / "teacher"),
        student=str(tmp_path / "student"),
        method=method,
        tasks={"arithmetic": {}},
        problems=8,
        collect=ANYTHING,
        sft=SFT,
        on_policy=OnPolicyConfig(steps=2, num_prompts=2, num_generations=2, max_tokens=6),
    )
    first = distill(config, runtime, tmp_path / "run", quiet=True)
    shutil.rmtree(tmp_path / "student")
    if method == "answers":
        shutil.rmtree(tmp_path / "teacher")
    again = distill(config, runtime, tmp_path / "run", resume=True, quiet=True)
    assert again["collected"] == first["collected"]
    assert again["training"]["steps"] == first["training"]["steps"]


def test_when_nothing_is_kept_the_reasons_are_said(remote_config, runtime, tmp_path):
    config = remote_config(collect={"num_generations": 1, "keep": {"max_characters": 3}}, problems=6)
    with pytest.raises(DataError, match=r"none of 6 answers .*\(2 wrong, 4 long\)"):
        distill(config, runtime, tmp_path / "run", quiet=True)
    loose = remote_config(collect={"num_generations": 1}, problems=6)
    assert distill(loose, runtime, tmp_path / "run", resume=True, quiet=True)["collected"]["kept"] == 4


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"method": "on_policy"}, "server gives only its words"),
        ({"tasks": {}}, "tasks is empty"),
        ({"student": ""}, "student"),
        ({"sft": {"data": ["x"]}}, "sft.data"),
        ({"problems": 0}, "problems"),
        ({"teacher": "http://me:password@host/v1"}, "remote.key_env"),
    ],
)
def test_settings_that_cannot_be_meant(remote_config, changes, word):
    with pytest.raises(ConfigError, match=word):
        remote_config(**changes)


@pytest.mark.parametrize(("sft", "word"), [({"epoch": 1}, "epoch"), ({"optim": {"lrr": 1}}, "lrr")])
def test_a_wrong_field_of_the_training_is_refused_before_the_teacher_works(
    remote_config, runtime, tmp_path, server, sft, word
):
    with pytest.raises(ConfigError, match=word):
        distill(remote_config(sft=sft), runtime, tmp_path / "run")
    assert server[1] == []


def test_a_preset_takes_a_local_teachers_tokenizer(remote_config, runtime, tmp_path, server, teacher_folder):
    config = remote_config(student="tiny", teacher=str(teacher_folder))
    assert config.sft_config(tmp_path, "words").tokenizer == "words"
    assert remote_config(student="tiny", sft={"tokenizer": "own"}).sft_config(tmp_path, "").tokenizer == "own"
    with pytest.raises(ConfigError, match=r"sft\.tokenizer"):
        distill(remote_config(student="tiny"), runtime, tmp_path / "run")
    assert server[1] == []


def test_a_student_that_is_not_there_is_missed_before_the_teacher_works(
    remote_config, runtime, tmp_path, server
):
    with pytest.raises(ShoestringError, match="nobody"):
        distill(remote_config(student=str(tmp_path / "nobody")), runtime, tmp_path / "run")
    assert server[1] == []


def test_lineage_is_added_once(tmp_path):
    (tmp_path / "README.md").write_text("# Model\n")
    add_lineage(tmp_path, "## Distillation\n")
    add_lineage(tmp_path, "## Distillation\n")
    assert (tmp_path / "README.md").read_text() == "# Model\n\n## Distillation\n"


def test_the_recipe_is_a_file(remote_config, tmp_path):
    configs.save(remote_config(), tmp_path / "r.toml")
    assert configs.load(DistillConfig, tmp_path / "r.toml") == remote_config()
