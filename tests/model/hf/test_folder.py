"""A model folder: ours opens in transformers, theirs opens in ours, with the same logits."""

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shoestring.errors import CheckpointError, ConfigError, UnsafeFileError
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, RopeConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

TINY = PRESETS["tiny"]
MLA = TINY.attention
YARN = RopeConfig(
    rope_type="yarn",
    interleave=True,
    factor=4.0,
    original_max_position_embeddings=16,
    mscale=1.0,
    mscale_all_dim=0.707,
)
assert isinstance(MLA, MLAConfig)
assert TINY.moe is not None

V2_MOE = replace(TINY.moe, scoring_func="softmax", topk_method="greedy", norm_topk_prob=False, n_group=1)
DENSE = replace(TINY, moe=None, num_nextn_predict_layers=0)
FAMILIES: dict[str, ModelConfig] = {
    "v3": replace(TINY, rope=YARN, initializer_range=0.2),
    "v2": replace(
        TINY, model_type="deepseek_v2", moe=V2_MOE, num_nextn_predict_layers=0, initializer_range=0.2
    ),
    "v2-lite": replace(
        TINY,
        model_type="deepseek_v2",
        attention=replace(MLA, q_lora_rank=None),
        moe=V2_MOE,
        num_nextn_predict_layers=0,
        rope=YARN,
        initializer_range=0.2,
    ),
    "qwen2": replace(
        DENSE,
        model_type="qwen2",
        attention=GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
        rope=RopeConfig(),
        tie_word_embeddings=True,
    ),
    "llama": replace(
        DENSE,
        model_type="llama",
        attention=GQAConfig(num_key_value_heads=2, head_dim=16),
        rope=RopeConfig(rope_type="llama3", factor=8.0, original_max_position_embeddings=64),
    ),
}


def build(config: ModelConfig) -> Transformer:
    generator = torch.Generator().manual_seed(0)
    model = initialize(Transformer(config), generator)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 1:  # norms, biases and the balance bias: no two alike
                tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
                assert name
    return model


IDS = torch.arange(3, 43)[None]


@pytest.mark.parametrize("name", FAMILIES)
def test_transformers_computes_the_same_from_our_folder(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    model = build(FAMILIES[name])
    save_model(model, tmp_path)
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    mtp = f"model.layers.{model.config.num_hidden_layers}."
    assert all(key.startswith(mtp) for key in report["unexpected_keys"])  # it builds MTP only when generating
    with torch.no_grad():
        difference = (theirs(IDS).logits - model(IDS)).abs().max().item()
    assert difference < 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_we_compute_the_same_from_their_folder(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers")
    save_model(build(FAMILIES[name]), tmp_path / "ours")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="100KB")
    with caplog.at_level(logging.WARNING):
        model = load_model(Checkpoint.open(tmp_path / "theirs"))
    assert ("its weights hold none" in caplog.text) == (name == "v3")  # they drop MTP when they save
    assert model.config.num_nextn_predict_layers == 0
    with torch.no_grad():
        difference = (theirs(IDS).logits - model(IDS)).abs().max().item()
    assert difference < 1e-4


def test_the_whole_folder(tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "chat_template.jinja", "secret.txt"):
        (tokenizer / name).write_text(name)
    config = replace(TINY, bos_token_id=0, eos_token_id=(1, 2))
    model = build(config)
    save_model(
        model,
        tmp_path / "model",
        dtype=torch.bfloat16,
        tokenizer_files=tokenizer,
        generation={"temperature": 0.6},
        license="mit",
        lineage="Trained from random weights.",
    )
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "README.md",
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    generation = json.loads((tmp_path / "model" / "generation_config.json").read_text())
    assert generation == {"bos_token_id": 0, "eos_token_id": [1, 2], "temperature": 0.6}
    assert json.loads((tmp_path / "model" / "config.json").read_text())["torch_dtype"] == "bfloat16"
    loaded = load_model(Checkpoint.open(tmp_path / "model"), dtype=torch.bfloat16)
    assert loaded.config == config
    assert loaded.model.norm.weight.dtype == torch.bfloat16
    names = [name for name, _ in model.named_parameters()]
    ours, theirs = model.state_dict(), loaded.state_dict()
    assert all(torch.equal(ours[name].to(torch.bfloat16), theirs[name]) for name in names)


QWEN = {
    "eos_token_id": [6, 5],
    "temperature": 0.7,
    "top_k": 20,
    "repetition_penalty": 1.05,
    "do_sample": True,
}


@pytest.mark.parametrize(
    ("fields", "eos", "expected"),
    [
        (QWEN, 6, QWEN),
        ({"eos_token_id": 5, "max_new_tokens": 9}, 6, {"eos_token_id": [5, 6], "max_new_tokens": 9}),
        ({"eos_token_id": [5]}, (5, 6), {"eos_token_id": [5, 6]}),
        ({"bos_token_id": 3, "future_field": {"a": 1}}, None, {"bos_token_id": 3, "future_field": {"a": 1}}),
    ],
)
def test_generation_config_comes_along_with_the_tokenizer(fields, eos, expected, tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "tokenizer.json").write_text("{}")
    (source / "generation_config.json").write_text(json.dumps(fields))
    save_model(build(replace(TINY, eos_token_id=eos)), out, tokenizer_files=source)
    assert json.loads((out / "generation_config.json").read_text()) == expected
    save_model(load_model(Checkpoint.open(out)), tmp_path / "again", tokenizer_files=out)
    assert json.loads((tmp_path / "again" / "generation_config.json").read_text()) == expected


def test_the_model_card_is_yaml_and_markdown(tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    save_model(build(TINY), tmp_path, license="mit", lineage='Trained: on "text".\n')
    card: Any = hub.ModelCard.load(tmp_path / "README.md")
    assert f"\n# {tmp_path.name}\n" in card.text
    assert card.data.license == "mit"
    assert card.data.library_name == "transformers"
    assert "59,456 parameters, 41,024 active per token" in card.text
    assert card.text.rstrip().endswith('Trained: on "text".')


def test_what_cannot_be_saved_or_loaded(tmp_path: Path) -> None:
    model = build(TINY)
    with pytest.raises(CheckpointError, match=r"holds no tokenizer\.json"):
        save_model(model, tmp_path / "a", tokenizer_files=tmp_path)
    with pytest.raises(CheckpointError, match=r"there is no config\.json"):
        load_model(Checkpoint.open(tmp_path / "nowhere"))
    save_model(model, tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "b" / "pytorch_model.bin")
    with pytest.raises(UnsafeFileError, match="is a pickle"):
        load_model(Checkpoint.open(tmp_path / "b"))
    (tmp_path / "b" / "config.json").write_text('{"model_type": "mamba"}')
    with pytest.raises(ConfigError, match="model_type 'mamba' is not supported"):
        load_model(Checkpoint.open(tmp_path / "b"))
