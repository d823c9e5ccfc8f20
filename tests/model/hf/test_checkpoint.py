"""An opened checkpoint: each file is read once, without PyTorch; missing and hostile files are refused."""

import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError, TokenizerError, UnsafeFileError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.weights import save_weights
from shoestring.model.packed.quantize import quantize_checkpoint
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

TINY = PRESETS["tiny"]
NAMES = ["config", "model_config", "tensors", "quantization", "generation", "tokenizer", "template"]

READS = """
import json, sys
from collections import Counter
from pathlib import Path

path, how = Path(sys.argv[1]), sys.argv[2]
opened = Counter()

def hook(event, arguments):
    if event == "open" and str(arguments[0]).startswith(str(path)):
        opened[Path(arguments[0]).name] += 1

sys.addaudithook(hook)
if how in ("show", "list"):
    from shoestring.cli.main import exit_code
    assert exit_code([how, str(path), "--json"]) == 0
    print(json.dumps(["torch" in sys.modules, opened]))
    sys.exit()
from shoestring import LLM, SamplingParams
from shoestring.device import choose
from shoestring.engine.load import load_engine
from shoestring.engine.settings import EngineSettings
from shoestring.model.hf.checkpoint import Checkpoint

if how == "load_engine":
    load_engine(Checkpoint.open(path), choose("cpu"), settings=EngineSettings(max_num_seqs=1))
else:
    llm = LLM(path, device="cpu", max_num_seqs=1, quantization=None if how == "LLM" else how)
    assert llm.has_template and llm.chat([{"role": "user", "content": "1+2"}], SamplingParams(max_tokens=1))
print(json.dumps(opened))
"""


def reads(folder: Path, how: str) -> object:
    """How often each file in `folder` is opened, by name."""
    command = [sys.executable, "-c", READS, str(folder), how]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    return json.loads(result.stdout.strip().splitlines()[-1])


@pytest.fixture(scope="module")
def folder(model_folder) -> Path:
    return model_folder(3)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy for one test to change."""
    return Path(shutil.copytree(folder, tmp_path / "model"))


@pytest.fixture(scope="module")
def sharded(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in several files."""
    path = tmp_path_factory.mktemp("sharded") / "model"
    shutil.copytree(folder, path)
    (path / "model.safetensors").unlink()
    config = Checkpoint.open(folder).config
    save_weights(initialize(Transformer(config), torch.Generator()), path, max_shard_bytes=150_000)
    return path


@pytest.mark.parametrize("how", ["load_engine", "LLM", "int4"])
def test_each_file_is_read_once_and_weights_twice(sharded: Path, how: str) -> None:
    """A shard is opened for its header and for its data."""
    count = reads(sharded, how)
    shards = {name: number for name, number in count.items() if name.endswith(".safetensors")}  # type: ignore[attr-defined]
    assert len(shards) > 2
    assert set(shards.values()) == {2}
    once = ("config.json", "model.safetensors.index.json", "tokenizer.json", "tokenizer_config.json")
    assert [count[name] for name in once] == [1] * len(once)  # type: ignore[index]
    if how != "load_engine":
        assert count["generation_config.json"] == count["chat_template.jinja"] == 1  # type: ignore[index]


@pytest.mark.parametrize("verb", ["show", "list"])
def test_show_and_list_read_headers_only_and_import_no_torch(verb: str, folder: Path) -> None:
    torch_imported, count = reads(folder, verb)  # type: ignore[misc]
    assert not torch_imported
    assert count == {"config.json": 1, "generation_config.json": 1, "model.safetensors": 1}


def test_properties_are_kept(folder: Path) -> None:
    checkpoint = Checkpoint.open(str(folder))
    for name in NAMES:
        assert getattr(checkpoint, name) is getattr(checkpoint, name)
    assert checkpoint == Checkpoint.open(folder)


def test_a_whole_folder(folder: Path) -> None:
    checkpoint = Checkpoint.open(folder)
    assert checkpoint.config == checkpoint.model_config
    assert checkpoint.has_mtp
    assert checkpoint.has_tokenizer
    assert checkpoint.has_template
    assert checkpoint.tokenizer.vocab_size <= checkpoint.config.vocab_size
    assert checkpoint.template.name == "shoestring's DeepSeek template"
    assert checkpoint.generation["eos_token_id"] == checkpoint.config.eos_token_id
    assert "model.embed_tokens.weight" in checkpoint.tensors
    assert checkpoint.quantization is checkpoint.fp8_block_size is checkpoint.commit is None
    assert not checkpoint.is_bfloat16


def test_a_bare_config_is_enough_for_the_shape(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "config.json", tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    assert checkpoint.config == Checkpoint.open(folder).config
    assert not checkpoint.has_tokenizer
    assert not checkpoint.has_template
    assert checkpoint.generation == {}
    with pytest.raises(CheckpointError, match="holds no weights"):
        _ = checkpoint.tensors
    with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
        _ = checkpoint.tokenizer


@pytest.mark.parametrize(
    ("files", "has_template"),
    [
        ({}, False),
        ({"tokenizer_config.json": "{}"}, False),
        ({"tokenizer_config.json": '{"chat_template": null}'}, False),
        ({"tokenizer_config.json": '{"chat_template": "{{ x }}"}'}, True),
        ({"tokenizer_config.json": '{"chat_template": [{"name": "default", "template": "x"}]}'}, True),
        ({"chat_template.jinja": "x"}, True),
    ],
)
def test_a_template_lies_in_one_of_two_files(
    files: dict[str, str], has_template: bool, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert Checkpoint.open(tmp_path).has_template == has_template


def test_mtp_modules_that_the_weights_lack_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = initialize(Transformer(replace(TINY, num_nextn_predict_layers=0)), torch.Generator())
    save_model(model, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_nextn_predict_layers": 2}))
    checkpoint = Checkpoint.open(tmp_path)
    with caplog.at_level(logging.WARNING):
        assert [checkpoint.model_config.num_nextn_predict_layers for _ in range(3)] == [0, 0, 0]
    assert len(caplog.messages) == 1
    assert "promises 2 MTP module(s) and its weights hold none" in caplog.text
    assert checkpoint.config.num_nextn_predict_layers == 2
    assert checkpoint.weight_bytes() == sum(p.nbytes for p in model.parameters())


def test_a_packed_checkpoint_says_so(folder: Path, tmp_path: Path) -> None:
    quantize_checkpoint(Checkpoint.open(folder), tmp_path / "int4", "int4")
    packed = Checkpoint.open(tmp_path / "int4")
    assert packed.quantization == "int4"
    assert packed.weight_bytes() == Checkpoint.open(folder).weight_bytes("int4")
    with pytest.raises(CheckpointError, match="quant_method 'shoestring'; only 'fp8'"):
        _ = packed.fp8_block_size


def test_the_commit_of_a_hub_snapshot(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--name" / "snapshots" / ("0a" * 20)
    snapshot.mkdir(parents=True)
    assert Checkpoint.open(snapshot).commit == "0a" * 20


def test_hostile_files_are_refused(folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    with config.open("wb") as file:
        file.truncate(10_000_001)
    with pytest.raises(CheckpointError, match="more than 10,000,000 bytes"):
        _ = Checkpoint.open(tmp_path).config
    with pytest.raises(CheckpointError, match="more than 10,000,000 bytes"):
        _ = Checkpoint.open(tmp_path).quantization
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UnsafeFileError):
        _ = Checkpoint.open(tmp_path).tensors
    (tmp_path / "generation_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is not a JSON object"):
        _ = Checkpoint.open(tmp_path).generation


@pytest.mark.parametrize(
    ("in_config", "in_generation", "expected"),
    [
        (7, [7, 8], (7, 8)),
        (7, 8, (7, 8)),
        ([7, 8], 7, (7, 8)),
        (None, [8], 8),
        (7, None, 7),
        (7, [7, 10**6], 7),
    ],
)
def test_end_tokens_are_those_of_both_files(
    in_config, in_generation, expected, folder: Path, tmp_path: Path
) -> None:
    for name, eos in (("config.json", in_config), ("generation_config.json", in_generation)):
        fields = json.loads((folder / name).read_text()) | {"eos_token_id": eos}
        (tmp_path / name).write_text(json.dumps(fields))
    assert Checkpoint.open(tmp_path).config.eos_token_id == expected


@pytest.mark.parametrize("eos", ["2", [2, None], True, {"id": 2}, -1])
def test_wrong_end_tokens_are_one_sentence(eos, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": eos}))
    with pytest.raises(CheckpointError, match=r"generation_config\.json: eos_token_id"):
        _ = Checkpoint.open(tmp_path).config


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("hf_quant_config.json", {"quantization": {"quant_algo": "FP8"}}, "by ModelOpt as 'FP8'"),
        ("hf_quant_config.json", {"producer": {}, "quantization": {"quant_algo": "NVFP4"}}, "as 'NVFP4'"),
        ("quantize_config.json", {"bits": 4, "group_size": 128, "desc_act": False}, "quantized by GPTQ;"),
        ("quant_config.json", {"w_bit": 4, "q_group_size": 128, "zero_point": True}, "quantized by AWQ;"),
    ],
)
def test_a_quantization_in_another_file_is_named(own: Path, name: str, content: dict, words: str) -> None:
    (own / name).write_text(json.dumps(content))
    for read in (lambda c: c.quantization, lambda c: c.fp8_block_size):
        with pytest.raises(CheckpointError, match=f"{name} says") as caught:
            read(Checkpoint.open(own))
        assert words in str(caught.value)
    with pytest.raises(CheckpointError, match="load those they were made from"):
        load_model(Checkpoint.open(own))


def test_a_quantization_of_the_cache_alone_is_none_of_the_weights(own: Path) -> None:
    content = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    (own / "hf_quant_config.json").write_text(json.dumps(content))
    assert Checkpoint.open(own).quantization is Checkpoint.open(own).fp8_block_size is None
