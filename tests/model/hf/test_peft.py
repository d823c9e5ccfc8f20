"""PEFT's folders: written and read, both ways; merging; damaged and foreign files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError, ConfigError, ShoestringError
from shoestring.model.config import GQAConfig, RopeConfig
from shoestring.model.hf import peft as files
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.peft import load_adapter, merge_adapter, save_adapter
from shoestring.model.lora import LoraConfig, add_adapters
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

V3 = replace(PRESETS["tiny"], initializer_range=0.2)
QWEN = replace(
    V3,
    model_type="qwen2",
    moe=None,
    num_nextn_predict_layers=0,
    attention=GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
    rope=RopeConfig(),
    tie_word_embeddings=True,
)
QWEN3 = replace(
    QWEN, model_type="qwen3", attention=GQAConfig(num_key_value_heads=1, head_dim=24, qk_norm=True)
)
IDS = torch.randint(0, 256, (2, 19), generator=torch.Generator().manual_seed(1))
RANK3 = LoraConfig(rank=3, alpha=6.0)


def new_model(config=V3) -> Transformer:
    return initialize(Transformer(config), torch.Generator().manual_seed(0))


def adapted(config=V3, settings=RANK3, seed: int = 2) -> Transformer:
    """A model whose adapters do change something."""
    model = new_model(config)
    add_adapters(model, settings, torch.Generator().manual_seed(seed))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(seed))
    return model


def logits(model: Transformer) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS)


@pytest.mark.parametrize("targets", [("attention", "mlp", "experts"), ("experts",), ("mlp",)])
def test_save_and_load_give_the_same_model(targets, tmp_path):
    model = adapted(settings=LoraConfig(rank=3, alpha=5.0, targets=targets))
    save_adapter(model, tmp_path, base="org/base")
    fresh = new_model()
    load_adapter(fresh, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(model), rtol=0, atol=1e-6)
    other = adapted(settings=LoraConfig(rank=3, alpha=5.0, targets=targets), seed=9)
    load_adapter(other, tmp_path)
    assert torch.equal(logits(other), logits(model))


def test_merge_adapter_writes_base_and_adapter_as_one_model(tmp_path):
    save_model(new_model(), tmp_path / "base")
    model = adapted()
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    torch.testing.assert_close(
        logits(load_model(Checkpoint.open(tmp_path / "merged"))), logits(model), rtol=0, atol=1e-6
    )
    assert "LoRA adapter adapter merged" in (tmp_path / "merged" / "README.md").read_text()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft in transformers
@pytest.mark.parametrize("config", [V3, QWEN, QWEN3], ids=["v3", "qwen2", "qwen3"])
def test_peft_reads_ours_and_we_read_peft_s(config, tmp_path):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    save_model(new_model(config), tmp_path / "base")
    ours = adapted(config)
    save_adapter(ours, tmp_path / "ours", base=str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, logits(ours), rtol=1e-4, atol=1e-4)
    assert (theirs(IDS).logits - logits(new_model(config))).abs().max() > 0.1

    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data.mul_(0.7)
    theirs.save_pretrained(tmp_path / "theirs")
    back = new_model(config)
    load_adapter(back, tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(theirs(IDS).logits, logits(back), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("use_dora", True, "use_dora"),
        ("rank_pattern", {"q_proj": 4}, "rank_pattern"),
        ("init_lora_weights", "pissa", "init_lora_weights"),
        ("peft_type", "IA3", "peft_type"),
        ("r", True, "r = 'True'"),
        ("r", 10**9, "not a rank"),
        ("lora_alpha", "NaN", "lora_alpha"),
        ("r", 4, "belongs to another model"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(field, value, words, tmp_path):
    save_adapter(adapted(), tmp_path, base="org/base")
    config = json.loads((tmp_path / files.CONFIG).read_text()) | {field: value}
    (tmp_path / files.CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        load_adapter(new_model(), tmp_path)


def test_an_adapter_of_another_model_is_refused_before_anything_changes(tmp_path):
    save_adapter(adapted(), tmp_path, base="org/base")
    model = new_model(QWEN)
    with pytest.raises(CheckpointError, match="no such matrix"):
        load_adapter(model, tmp_path)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_damaged_files_are_sentences(tmp_path):
    save_adapter(adapted(), tmp_path, base="org/base")
    weights, config = tmp_path / files.WEIGHTS, tmp_path / files.CONFIG
    good = weights.read_bytes()
    generator = torch.Generator().manual_seed(3)
    for _ in range(25):
        data = bytearray(good[: int(torch.randint(1, len(good), (), generator=generator))])
        data[int(torch.randint(0, min(len(data), 400), (), generator=generator))] ^= 1 << 4
        weights.write_bytes(data)
        with pytest.raises(ShoestringError):
            load_adapter(new_model(), tmp_path)
    weights.write_bytes(good)
    for text in ("", "[]", "[" * 100_000, "{", '{"r": 3}', "\xff"):
        config.write_bytes(text.encode("latin-1"))
        with pytest.raises(CheckpointError):
            load_adapter(new_model(), tmp_path)
    config.unlink()
    with pytest.raises(CheckpointError, match="No such file"):
        load_adapter(new_model(), tmp_path)


def test_a_model_without_adapters_has_none_to_save():
    with pytest.raises(ConfigError, match="no adapters"):
        save_adapter(new_model(), Path("never-made"), base="")
