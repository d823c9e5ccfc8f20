"""One tiny run, trained through the command line itself, that the verbs are tried on."""

import json
import shutil
from pathlib import Path

import pytest

from tests.caches import own_cache

SHAPE = {
    "model_type": "deepseek_v3",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 48,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.0,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "num_nextn_predict_layers": 1,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for number in range(40):
        lines = [f"def function_{number}_{i}(x):\n    return x + {i * number}\n" for i in range(20)]
        (folder / f"{number:02}.py").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shape")
    (folder / "config.json").write_text(json.dumps(SHAPE))
    return folder


@pytest.fixture(scope="session")
def settings(texts: Path, shape: Path) -> list[str]:
    """`--set` options of a run that takes seconds."""
    fields = {
        "model": json.dumps(str(shape)),
        "data.sources": json.dumps([str(texts)]),
        "data.heldout_fraction": "0.2",
        "data.drop_near_duplicates": "false",
        "total_tokens": "6000",
        "seq_len": "64",
        "batch_size": "4",
        "micro_batch_size": "4",
        "eval_every": "10",
        "save_every": "5",
        "eval_tokens": "500",
    }
    return [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, settings: list[str]) -> Path:
    """The folder of a finished run."""
    from shoestring.cli.main import exit_code

    root = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", own_cache(root / "cache"))
        assert exit_code(["pretrain", *settings, "--out", str(root / "run"), "--quiet"]) == 0
    assert not (root / "run" / "model" / "chat_template.jinja").exists()
    return root / "run"


@pytest.fixture(scope="session")
def talker(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model with the chat template that pretraining leaves out."""
    folder = tmp_path_factory.mktemp("talker") / "model"
    shutil.copytree(trained / "model", folder)
    shutil.copyfile(trained / "tokenizer" / "chat_template.jinja", folder / "chat_template.jinja")
    return folder


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, trained: Path):
    """Run a verb: (exit code, stdout, stderr)."""
    from shoestring.cli.main import exit_code

    monkeypatch.setenv("XDG_CACHE_HOME", str(trained.parent / "cache"))

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = exit_code(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture
def repository() -> Path:
    return Path(__file__).resolve().parents[2]
