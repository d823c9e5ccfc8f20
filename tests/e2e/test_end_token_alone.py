"""Training verbs with a tokenizer that has an end token and neither begin nor pad token, as Qwen2.5's."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Trained

from shoestring.cli.main import exit_code
from shoestring.model.gguf.vocabulary.splits import SPLITS
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.presets import SMOLLM2_135M
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.chat.deepseek import TEMPLATE_FILE
from tests.caches import own_cache

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
END = "<|im_end|>"
TEXTS = ["def f(x): return x + 1", "1+2=3 so 4*5=20", "assistant user make 24 from 3,8,1"]


def write_tokenizer(folder: Path) -> int:
    """A tokenizer in Qwen2's manner; returns its number of ids."""
    tokenizer = Trained(models.BPE())
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS["qwen2"].patterns]
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet, specials = pre_tokenizers.ByteLevel.alphabet(), ["<|im_start|>", END]
    trainer = trainers.BpeTrainer(
        vocab_size=290, initial_alphabet=alphabet, special_tokens=specials, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": END, "pad_token": None, "bos_token": None, "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    (folder / TEMPLATE_FILE).write_text(CHATML)
    return tokenizer.get_vocab_size()


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("end-alone")
    size = write_tokenizer(folder / "tokenizer")
    end_id = Trained.from_file(str(folder / "tokenizer" / "tokenizer.json")).token_to_id(END)
    shape = replace(
        SMOLLM2_135M,
        vocab_size=size,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=3,
        attention=replace(SMOLLM2_135M.attention, num_key_value_heads=1, head_dim=16),
        max_position_embeddings=256,
        initializer_range=0.2,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=None,
    )
    weights = initialize(Transformer(shape), torch.Generator().manual_seed(1))
    save_model(weights, folder / "model", tokenizer_files=folder / "tokenizer")
    return folder / "model"


@pytest.fixture(scope="module")
def texts(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(40):
        lines = [f"def function_{number}_{i}(x):\n    return x + {i * number}\n" for i in range(20)]
        (folder / f"{number:02}.py").write_text("".join(lines))
    return folder


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path_factory):
    """Runs a verb: (exit code, stdout, stderr)."""
    monkeypatch.setenv("XDG_CACHE_HOME", own_cache(tmp_path_factory.getbasetemp() / "cache"))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = exit_code(list(arguments))
        return code, *capsys.readouterr()

    return call


def settings(**fields: object) -> list[str]:
    return [part for name, value in fields.items() for part in ("--set", f"{name}={json.dumps(value)}")]


def check_result(cli, folder: Path, texts: Path, tmp_path: Path) -> None:
    """The model runs, is scored on text and survives both exports; no begin or pad token has come to it."""
    checkpoint = Checkpoint.open(folder)
    ends = {"bos_token_id": None, "eos_token_id": checkpoint.tokenizer.eos_id, "pad_token_id": None}
    assert checkpoint.tokenizer.begin_ids == ()
    assert checkpoint.tokenizer.model_ids == ends
    assert (checkpoint.config.bos_token_id, checkpoint.config.pad_token_id) == (None, None)
    code, _, err = cli("run", str(folder), "1+2=", "--max-tokens", "3", "--json")
    assert code == 0, err
    code, _, err = cli("eval", str(folder), "--source", str(texts), *settings(max_tokens=500))
    assert code == 0, err
    for name in ("exported.gguf", "exported"):
        code, _, err = cli("export", str(folder), str(tmp_path / name))
        assert code == 0, err
    code, _, err = cli("import", str(tmp_path / "exported.gguf"), str(tmp_path / "imported"))
    assert code == 0, err
    for name in ("exported", "imported"):
        tokenizer = Checkpoint.open(tmp_path / name).tokenizer
        assert tokenizer.begin_ids == ()
        assert tokenizer.encode(TEXTS[1]) == checkpoint.tokenizer.encode(TEXTS[1])
        assert tokenizer.model_ids == ends


@pytest.mark.parametrize("rank", [0, 2])
def test_fine_tuning(cli, model, texts, tmp_path, rank):
    talks = tmp_path / "talks.jsonl"
    turns = [{"role": "user", "content": "1+2=?"}, {"role": "assistant", "content": "3"}]
    talks.write_text("".join(json.dumps({"messages": turns, "n": n}) + "\n" for n in range(8)))
    fields = settings(model=str(model), data=[str(talks)], seq_len=64, epochs=1.0) + settings(
        **{"lora.rank": rank}
    )
    code, _, err = cli("sft", *fields, "--out", str(tmp_path / "run"), "--quiet")
    assert code == 0, err
    check_result(cli, tmp_path / "run" / "model", texts, tmp_path)


def test_reinforcement(cli, model, texts, tmp_path):
    fields = settings(
        model=str(model), steps=1, num_prompts=2, num_generations=2, max_tokens=8, **{"loss.beta": 0.01}
    )
    tasks = ["--set", 'tasks=[{name="arithmetic"}]']
    code, _, err = cli("rl", *fields, *tasks, "--out", str(tmp_path / "run"), "--quiet")
    assert code == 0, err
    check_result(cli, tmp_path / "run" / "model", texts, tmp_path)


def test_distillation(cli, model, texts, tmp_path, monkeypatch):
    from shoestring.distill import collect, keep

    for module in (collect, keep):  # a random model never ends by itself
        monkeypatch.setattr(module, "COMPLETE", (*keep.COMPLETE, "length"))
    fields = settings(
        teacher=str(model),
        student=str(model),
        problems=3,
        **{
            "collect.max_tokens": 8,
            "collect.num_generations": 1,
            "collect.keep.reward": 0.0,
            "collect.keep.thinking": False,
            "sft.seq_len": 128,
        },
    )
    tasks = ["--set", "tasks.arithmetic={}"]
    code, _, err = cli("distill", *fields, *tasks, "--out", str(tmp_path / "run"), "--quiet")
    assert code == 0, err
    check_result(cli, tmp_path / "run" / "student" / "model", texts, tmp_path)


def test_on_policy_distillation(cli, model, texts, tmp_path):
    fields = settings(
        teacher=str(model),
        student=str(model),
        method="on_policy",
        problems=2,
        **{"on_policy.steps": 1, "on_policy.num_prompts": 2, "on_policy.max_tokens": 8},
    )
    tasks = ["--set", "tasks.arithmetic={}"]
    code, _, err = cli("distill", *fields, *tasks, "--out", str(tmp_path / "run"), "--quiet")
    assert code == 0, err
    check_result(cli, tmp_path / "run" / "student" / "model", texts, tmp_path)


def test_pretraining(cli, model, texts, tmp_path):
    fields = settings(
        model=str(model),
        tokenizer=str(model),
        total_tokens=600,
        seq_len=32,
        batch_size=2,
        micro_batch_size=2,
        **{"data.sources": [str(texts)], "data.heldout_fraction": 0.1, "eval_tokens": 300},
    )
    code, _, err = cli("pretrain", *fields, "--out", str(tmp_path / "refused"), "--quiet")
    assert code == 1
    assert "<｜fim▁begin｜>', which filling in the middle needs; set data.fim_rate=0" in err
    out = str(tmp_path / "run")
    code, _, err = cli("pretrain", *fields, *settings(**{"data.fim_rate": 0.0}), "--out", out, "--quiet")
    assert code == 0, err
    check_result(cli, tmp_path / "run" / "model", texts, tmp_path)
