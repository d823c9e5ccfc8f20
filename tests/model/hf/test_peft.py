"""PEFT's folders: written and read, both ways; merging; damaged and foreign files."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import validate_repo_id
from safetensors.torch import load_file

from shoestring.errors import CheckpointError, ConfigError, ShoestringError
from shoestring.model.hf import peft as files
from shoestring.model.hf.adapter_config import base_of
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.merge import merge_adapter
from shoestring.model.hf.peft import load_adapter, save_adapter
from shoestring.model.lora import LoraConfig, merge, target_weights


@pytest.mark.parametrize("targets", [("attention", "mlp", "experts"), ("experts",), ("mlp",)])
def test_save_and_load_give_the_same_model(targets, tmp_path, new_model, adapted, logits):
    model = adapted(settings=LoraConfig(rank=3, alpha=5.0, targets=targets))
    save_adapter(model, tmp_path, base="org/base")
    fresh = new_model()
    load_adapter(fresh, tmp_path)
    torch.testing.assert_close(logits(fresh), logits(model), rtol=1e-4, atol=1e-4)
    other = adapted(settings=LoraConfig(rank=3, alpha=5.0, targets=targets), seed=9)
    load_adapter(other, tmp_path)
    assert torch.equal(logits(other), logits(model))


@pytest.mark.parametrize(
    ("start", "base", "revision"),
    [
        ("org/name", "org/name", None),
        ("org/name@v1", "org/name", "v1"),
        ("hf://org/name", "org/name", None),
        ("hf://org/name@refs/pr/1", "org/name", "refs/pr/1"),
        ("hf://org/name@" + "a" * 40, "org/name", "a" * 40),
        ("org/na.me_2@feature/x-1", "org/na.me_2", "feature/x-1"),
        ("mini", "/", None),
        ("./here", "/", None),
        ("~/there", "/", None),
    ],
)
def test_the_base_is_named_as_peft_opens_it(start, base, revision, tmp_path, monkeypatch, adapted):
    for name, folder in (("here", tmp_path), ("there", tmp_path / "home")):
        (folder / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    save_adapter(adapted(), tmp_path / "adapter", base=start)
    config = json.loads((tmp_path / "adapter" / files.CONFIG).read_text())
    named = config["base_model_name_or_path"]
    assert config["revision"] == revision
    if base == "/":
        assert Path(named).is_absolute()
        assert Path(named).is_dir()
        assert base_of(tmp_path / "adapter") == named
    else:
        validate_repo_id(named)
        assert named == base
        assert base_of(tmp_path / "adapter") == (f"{base}@{revision}" if revision else base)


def test_merge_adapter_writes_base_and_adapter_as_one_model(tmp_path, new_model, adapted, logits):
    save_model(new_model(), tmp_path / "base")
    model = adapted()
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    torch.testing.assert_close(
        logits(load_model(Checkpoint.open(tmp_path / "merged"))), logits(model), rtol=1e-4, atol=1e-4
    )
    assert "LoRA adapter adapter merged" in (tmp_path / "merged" / "README.md").read_text()


FORMS = {
    "plain": {},
    "rank-stabilized": {"use_rslora": True},
    "dora": {"use_dora": True, "targets": ("attention", "mlp")},
    "dora, rank-stabilized, by name": {
        "use_dora": True,
        "use_rslora": True,
        "targets": ("o_proj", "up_proj"),
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_when_read_and_when_merged(form, family, tmp_path, new_model, adapted, logits):
    save_model(new_model(family), tmp_path / "base")
    model = adapted(family, LoraConfig(rank=4, alpha=6.0, **FORMS[form]))
    save_adapter(model, tmp_path / "adapter", base=str(tmp_path / "base"))
    config = json.loads((tmp_path / "adapter" / files.CONFIG).read_text())
    assert (config["use_dora"], config["use_rslora"], config["lora_alpha"]) == (
        "use_dora" in FORMS[form],
        "use_rslora" in FORMS[form],
        6.0,
    )
    fresh = new_model(family)
    load_adapter(fresh, tmp_path / "adapter")
    torch.testing.assert_close(logits(fresh), logits(model), rtol=0, atol=0)
    merge_adapter(tmp_path / "adapter", tmp_path / "merged")
    merged = load_model(Checkpoint.open(tmp_path / "merged"))
    torch.testing.assert_close(logits(merged), logits(model), rtol=2e-4, atol=2e-4)
    merge(model)
    assert torch.equal(logits(model), logits(merged))
    assert (logits(new_model(family)) - logits(merged)).abs().max() > 0.1


def by_the_papers(model, folder: Path) -> None:
    """Change the weights of transformers' model as the files of an adapter say, by the papers' formulas.

    W + s B A (arXiv 2106.09685), s = alpha / sqrt(r) if rank-stabilized (2312.03732), each row scaled to the
    length of its magnitude with DoRA (2402.09353).
    """
    config = json.loads((folder / files.CONFIG).read_text())
    tensors = load_file(folder / files.WEIGHTS)
    scale = config["lora_alpha"] / config["r"] ** (0.5 if config["use_rslora"] else 1.0)
    for name in sorted(name for name in tensors if name.endswith("lora_A.weight")):
        path = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        weight = model.get_submodule(path).weight
        total = weight + scale * tensors[name.replace("lora_A", "lora_B")] @ tensors[name]
        magnitude = tensors.get(f"base_model.model.{path}.lora_magnitude_vector")
        if config["use_dora"]:
            total = magnitude[:, None] * total / total.square().sum(1, keepdim=True).sqrt()
        weight.data = total


@pytest.mark.parametrize("form", FORMS)
def test_the_files_mean_to_transformers_what_they_mean_here(
    form, tmp_path, dense, new_model, adapted, logits, ids
):
    transformers = pytest.importorskip("transformers")
    save_model(new_model(dense), tmp_path / "base")
    ours = adapted(dense, LoraConfig(rank=4, alpha=6.0, **FORMS[form]))
    save_adapter(ours, tmp_path / "adapter", base=str(tmp_path / "base"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32).eval()
    with torch.no_grad():
        before = theirs(ids).logits
        by_the_papers(theirs, tmp_path / "adapter")
        torch.testing.assert_close(theirs(ids).logits, logits(ours), rtol=1e-4, atol=1e-4)
    assert (theirs(ids).logits - before).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # of peft in transformers
@pytest.mark.parametrize("form", FORMS)
def test_peft_reads_ours_and_we_read_peft_s(form, family, tmp_path, new_model, adapted, logits, ids):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    save_model(new_model(family), tmp_path / "base")
    settings = LoraConfig(rank=4, alpha=6.0, **FORMS[form])
    if family.moe is not None and settings.use_dora:  # PEFT would take the experts' modules too
        settings = replace(settings, targets=("attention",))
    ours = adapted(family, settings)
    save_adapter(ours, tmp_path / "ours", base=str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours").eval()
    alone = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "ours", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, logits(ours), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone(ids).logits, theirs(ids).logits)
    assert (theirs(ids).logits - logits(new_model(family))).abs().max() > 0.1

    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            parameter.data.mul_(0.7)
    theirs.save_pretrained(tmp_path / "theirs")
    back = new_model(family)
    load_adapter(back, tmp_path / "theirs")
    with torch.no_grad():
        torch.testing.assert_close(theirs(ids).logits, logits(back), rtol=1e-4, atol=1e-4)
    merge(back)
    merged = theirs.merge_and_unload()
    with torch.no_grad():
        torch.testing.assert_close(merged(ids).logits, logits(back), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_peft_s(form, dense, tmp_path, new_model, adapted, ids):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    save_model(new_model(dense), tmp_path / "base")
    ours = adapted(dense, LoraConfig(rank=4, alpha=6.0, **FORMS[form])).train()
    save_adapter(ours, tmp_path / "ours", base=str(tmp_path / "base"))
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "ours", is_trainable=True)
    theirs(ids).logits.square().mean().backward()
    ours(ids).square().mean().backward()
    gradients = {name: p.grad for name, p in theirs.named_parameters() if p.grad is not None}
    assert len(gradients) == sum(p.requires_grad for p in ours.parameters())
    for target in target_weights(ours):
        if target.adapter is None:
            continue
        for half, parameter in target.adapter.named_parameters():
            theirs_half = {"magnitude": "lora_magnitude_vector.default.weight"}.get(
                half, f"{half}.default.weight"
            )
            (name,) = [name for name in gradients if name.endswith(f"{target.name}.{theirs_half}")]
            scale = gradients[name].abs().max()
            assert (parameter.grad - gradients[name]).abs().max() < 1e-4 * scale, name


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("use_dora", True, "belongs to another model"),
        ("use_dora", "yes", "neither true nor false"),
        ("rank_pattern", {"q_proj": 4}, "rank_pattern"),
        ("init_lora_weights", "pissa", "init_lora_weights = 'pissa' changed the base"),
        ("init_lora_weights", ["eva"], "changed the base"),
        ("trainable_token_indices", [5], "trainable_token_indices"),
        ("peft_type", "IA3", "peft_type"),
        ("r", True, "r = 'True'"),
        ("r", 10**9, "not a rank"),
        ("lora_alpha", "NaN", "lora_alpha"),
        ("r", 4, "belongs to another model"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(field, value, words, tmp_path, new_model, adapted):
    save_adapter(adapted(), tmp_path, base="org/base")
    config = json.loads((tmp_path / files.CONFIG).read_text()) | {field: value}
    (tmp_path / files.CONFIG).write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words):
        load_adapter(new_model(), tmp_path)


@pytest.mark.parametrize("value", [True, False, "gaussian", "eva", None])
def test_first_values_of_the_factors_change_nothing(value, tmp_path, new_model, adapted, logits):
    save_adapter(adapted(), tmp_path, base="org/base")
    config = json.loads((tmp_path / files.CONFIG).read_text()) | {"init_lora_weights": value}
    (tmp_path / files.CONFIG).write_text(json.dumps(config))
    model = new_model()
    load_adapter(model, tmp_path)
    assert torch.equal(logits(model), logits(adapted()))


def test_an_adapter_of_another_model_is_refused_before_anything_changes(tmp_path, new_model, adapted, dense):
    save_adapter(adapted(), tmp_path, base="org/base")
    model = new_model(dense)
    with pytest.raises(CheckpointError, match="no such matrix"):
        load_adapter(model, tmp_path)
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_damaged_files_are_sentences(tmp_path, new_model, adapted):
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


def test_a_model_without_adapters_has_none_to_save(new_model):
    with pytest.raises(ConfigError, match="no adapters"):
        save_adapter(new_model(), Path("never-made"), base="")
