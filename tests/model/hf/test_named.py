"""Names of models: MODEL+ADAPTER, several adapters, an adapter alone; and merging."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError
from shoestring.model.hf import peft as files
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.merge import save_merged
from shoestring.model.hf.named import open_model, split_name
from shoestring.model.hf.peft import load_adapter, save_adapter
from shoestring.model.lora import LoraConfig, merge

FORMS = {
    "one": LoraConfig(rank=3, alpha=6.0),
    "two": LoraConfig(rank=2, alpha=4.0, targets=("attention",), use_dora=True),
    "a+b": LoraConfig(rank=2, alpha=8.0, targets=("mlp",), use_rslora=True),
}


@pytest.fixture
def folder(tmp_path, new_model, adapted) -> Path:
    """A base and three adapters on it, one of which has a `+` in its name."""
    save_model(new_model(), tmp_path / "base")
    for seed, (name, form) in enumerate(FORMS.items()):
        save_adapter(adapted(settings=form, seed=seed), tmp_path / name, base=str(tmp_path / "base"))
    return tmp_path


def test_names_are_parted_where_a_folder_ends(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert split_name("base") == ["base"]
    assert split_name("base+one") == ["base", "one"]
    assert split_name("base+a+b+one") == ["base", "a+b", "one"]
    assert split_name("org/name@v1+org/lora+a+b") == ["org/name@v1", "org/lora", "a+b"]
    shutil.copytree("base", "c++")
    assert split_name("c+++one") == ["c++", "one"]


def test_several_adapters_are_added_in_their_order(folder, new_model, logits):
    names = ["base", *FORMS]
    checkpoint = open_model("+".join(str(folder / name) for name in names))
    assert [path.name for path in (checkpoint.folder, *checkpoint.adapters)] == names
    expected = new_model()
    for name in FORMS:
        load_adapter(expected, folder / name)
        merge(expected)
    torch.testing.assert_close(logits(load_model(checkpoint)), logits(expected), rtol=1e-5, atol=1e-5)
    other = open_model("+".join(str(folder / name) for name in reversed(names[1:]) if name != "a+b"))
    assert [path.name for path in (other.folder, *other.adapters)] == ["base", "two", "one"]
    save_merged(load_model(checkpoint), checkpoint, folder / "merged")
    assert torch.equal(logits(load_model(Checkpoint.open(folder / "merged"))), logits(load_model(checkpoint)))


def test_an_adapter_alone_is_on_the_model_that_it_names(folder, logits):
    alone, both = open_model(folder / "one"), open_model(f"{folder / 'base'}+{folder / 'one'}")
    assert alone == both
    content = json.loads((folder / "one" / files.CONFIG).read_text())
    for base in (None, 3, ""):
        (folder / "one" / files.CONFIG).write_text(json.dumps(content | {"base_model_name_or_path": base}))
        with pytest.raises(CheckpointError, match="names no base_model_name_or_path"):
            open_model(folder / "one")


def test_the_tokenizer_and_the_settings_are_those_of_the_last_adapter_that_has_some(folder):
    name = f"{folder / 'base'}+{folder / 'one'}+{folder / 'two'}"
    assert not open_model(name).has_tokenizer
    for place, ends in (("base", 1), ("one", 7)):
        (folder / place / "tokenizer.json").write_text("{}")
        (folder / place / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    checkpoint = open_model(name)
    assert checkpoint.has_tokenizer
    assert checkpoint.tokenizer_folder == folder / "one"
    assert 7 in checkpoint.config.eos_token_ids


@pytest.mark.parametrize("name", ["base+missing", "base+base", "missing+one", "base+", "+one", "base+one+"])
def test_what_is_no_model_or_no_adapter_is_a_sentence(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(CheckpointError, match=r"there is no|is no adapter"):
        open_model(name)
