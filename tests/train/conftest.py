"""A model, a corpus and a recipe so small that a training run takes a second."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shoestring.data.corpus import DataConfig
from shoestring.model.config import MLAConfig, ModelConfig, MoEConfig
from shoestring.model.hf.config import save_config
from shoestring.model.hf.folder import save_model
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.train import checkpoint, state
from shoestring.train import pretrain as story
from shoestring.train import pretrain_run as run
from shoestring.train.optim import OptimConfig
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report import metrics
from shoestring.train.schedule import ScheduleConfig
from shoestring.train.sft_recipe import SFTConfig, SFTOptim

WORDS = [
    "def",
    "return",
    "class",
    "import",
    "yield",
    "lambda",
    "while",
    "for",
    "in",
    "if",
    "else",
    "(x):",
    "[y]",
    "=",
    "{z}",
    "+",
    "'a'",
    "*",
    "12",
    "#",
    "note\n",
]


@pytest.fixture(scope="session")
def tiny_shape() -> ModelConfig:
    """All of DeepSeek-V3's parts: MLA with both latents, a dense layer, routed and shared experts, MTP."""
    return ModelConfig(
        model_type="deepseek_v3",
        vocab_size=300,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        attention=MLAConfig(
            q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8
        ),
        moe=MoEConfig(
            n_routed_experts=8,
            n_shared_experts=1,
            num_experts_per_tok=2,
            moe_intermediate_size=16,
            first_k_dense_replace=1,
            n_group=2,
            topk_group=1,
        ),
        max_position_embeddings=256,
        num_nextn_predict_layers=1,
        initializer_range=0.1,
    )


@pytest.fixture
def tiny_model(tiny_shape):
    """Makes a model: `tiny_model(seed, num_nextn_predict_layers=2)`."""

    def make(seed: int = 0, **changes) -> Transformer:
        model = Transformer(replace(tiny_shape, **changes))
        return initialize(model, torch.Generator().manual_seed(seed)).train()

    return make


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """40 documents of random words."""
    folder = tmp_path_factory.mktemp("corpus")
    generator = np.random.default_rng(7)
    for number in range(40):
        text = " ".join(generator.choice(WORDS, size=int(generator.integers(60, 200))))
        (folder / f"{number:02}.py").write_text(f"# {number}\n{text}\n")
    return folder


@pytest.fixture
def recipe(tmp_path_factory, monkeypatch, corpus, tiny_shape):
    """Makes a recipe of 12 steps, the first with half the rows; shards are kept between tests."""
    shards = tmp_path_factory.getbasetemp() / "shards"
    monkeypatch.setattr(run, "cache_folder", lambda _: shards)
    shape = tmp_path_factory.getbasetemp() / "shape"
    save_config(tiny_shape, shape)

    def make(**changes) -> PretrainConfig:
        settings = {
            "model": str(shape),
            "total_tokens": (2 + 11 * 4) * 32,
            "seq_len": 32,
            "batch_size": 4,
            "micro_batch_size": 2,
            "save_every": 3,
            "eval_every": 6,
            "data": DataConfig(sources=(str(corpus),), heldout_fraction=0.2),
            "optim": OptimConfig(name="muon"),
            "schedule": ScheduleConfig(warmup_ratio=0.2, batch_start=0.5, batch_ramp_until=0.04),
        }
        return PretrainConfig(**settings | changes)

    return make


@pytest.fixture(scope="session")
def unbroken_out(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("unbroken") / "run"


@pytest.fixture
def whole(unbroken_out, recipe, runtime, monkeypatch) -> Path:
    """The folder of one run from beginning to end, made once for all tests that compare with it."""
    if not unbroken_out.exists():
        monkeypatch.setattr(story, "measure_peak", lambda _: 1e9)
        story.pretrain(recipe(), runtime, unbroken_out, quiet=True)
    return unbroken_out


@pytest.fixture
def log_rows():
    """Reads metrics.jsonl without what depends on the clock."""

    def read(out: Path) -> list[dict]:
        rows = metrics.read(out / "metrics.jsonl")
        return [{k: v for k, v in row.items() if k not in ("tokens_per_s", "peak_share")} for row in rows]

    return read


@pytest.fixture
def same_run(log_rows):
    """Asserts that two runs ended with the same weights, trainer state and log, bit for bit."""

    def parts(out: Path) -> tuple[dict[str, torch.Tensor], dict]:
        tensors, values = state.load_state(checkpoint.latest(out / "checkpoints") / "trainer")
        values = {name: value for name, value in values.items() if name != "segments"}  # these hold times
        values["flops"].pop("recomputation", None)  # it changes no number
        return tensors | load_file(out / "model" / "model.safetensors"), values

    def check(one: Path, other: Path) -> None:
        (tensors, values), (others, other_values) = parts(one), parts(other)
        assert values == other_values
        assert tensors.keys() == others.keys()
        assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
        assert log_rows(one) == log_rows(other)

    return check


@pytest.fixture
def stop_after():
    """`stop_after(monkeypatch, n)`: Ctrl-C during the n-th step from here."""

    def patch(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
        real, calls = story.train_step, []

        def with_signal(*arguments):
            calls.append(1)
            if len(calls) == step:
                os.kill(os.getpid(), signal.SIGINT)
            return real(*arguments)

        monkeypatch.setattr(story, "train_step", with_signal)

    return patch


@pytest.fixture(scope="session")
def talks(tmp_path_factory) -> Path:
    """Sums of different lengths, and one conversation that is too long."""
    lines = []
    for i in range(48):
        asked = f"what is {' + '.join(str(i % 5 + j) for j in range(1 + i % 4))}"
        answer = {"role": "assistant", "content": "yes " * (i % 7) + "ok", "reasoning_content": "hm"}
        lines.append({"messages": [{"role": "user", "content": asked}, answer], "source": f"talk {i}"})
    lines.append(
        {"messages": [{"role": "user", "content": "x" * 400}, {"role": "assistant", "content": "y"}]}
    )
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory, tiny_shape) -> Path:
    """A base model as pretraining leaves it: without a chat template."""
    folder = tmp_path_factory.mktemp("base")
    tokenizer = Tokenizer.train(["what is 1 + 2 + 3 yes ok hm"] * 3, 300)
    (folder / "tokenizer").mkdir()
    tokenizer.save(folder / "tokenizer")
    special = {"bos_token_id": tokenizer.bos_id, "eos_token_id": tokenizer.eos_id}
    model = initialize(Transformer(replace(tiny_shape, **special)), torch.Generator().manual_seed(5))
    save_model(model, folder / "model", tokenizer_files=folder / "tokenizer")
    return folder / "model"


@pytest.fixture
def sft_recipe(base, talks):
    """Makes a recipe of about 10 steps."""

    def make(**changes) -> SFTConfig:
        settings = {
            "model": str(base),
            "data": (str(talks),),
            "seq_len": 100,
            "batch_tokens": 300,
            "micro_tokens": 120,
            "eval_every": 4,
            "save_every": 3,
            "heldout_fraction": 0.1,
            "optim": SFTOptim(lr=1e-3),
        }
        return SFTConfig(**settings | changes)

    return make
