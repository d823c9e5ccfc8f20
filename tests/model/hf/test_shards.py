"""The files of a checkpoint folder: missing, foreign, hostile, or pickles; each gets its sentence."""

import json
import os
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError, UnsafeFileError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.weights import load_weights, save_weights
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

NORM = "model.norm.weight"
TINY = PRESETS["tiny"]


def build() -> Transformer:
    return initialize(Transformer(TINY), torch.Generator().manual_seed(0))


def on_meta() -> Transformer:
    with torch.device("meta"):
        return Transformer(TINY)


def same(model: Transformer, other: Transformer) -> bool:
    ours, theirs = model.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tmp_path / "sharded"
    save_weights(build(), folder, max_shard_bytes=60_000)
    return folder


def index_of(folder: Path) -> dict[str, dict[str, str]]:
    return json.loads((folder / "model.safetensors.index.json").read_text())


def refused(folder: Path, said: str, kind: type[CheckpointError] = CheckpointError) -> None:
    with pytest.raises(kind) as caught:
        load_weights(on_meta(), Checkpoint.open(folder))
    assert said in str(caught.value)


def test_a_shard_that_is_missing_cut_or_another(sharded: Path) -> None:
    shards = sorted(sharded.glob("*.safetensors"))
    assert len(shards) > 3
    data = shards[1].read_bytes()
    shards[1].write_bytes(data[:-1])
    refused(sharded, f"{shards[1]} is damaged")
    shards[1].write_bytes(shards[2].read_bytes())
    refused(sharded, "is not what model.safetensors.index.json says")
    shards[1].unlink()
    refused(sharded, f"lacks the weight file {shards[1].name}")
    shards[1].write_bytes(data)
    load_weights(on_meta(), Checkpoint.open(sharded))
    (sharded / "model.safetensors.index.json").unlink()
    refused(sharded, f"holds {len(shards)} weight files and no model.safetensors.index.json")


@pytest.mark.parametrize(
    "target",
    [
        "../outside.safetensors",
        "/etc/passwd",
        "/tmp/x.safetensors",
        "sub/x.safetensors",
        "..\\x.safetensors",
        "C:x.safetensors",
        "x\0.safetensors",
        "x" * 300 + ".safetensors",
        "pytorch_model.bin",
        "",
        7,
        None,
    ],
)
def test_an_index_that_points_elsewhere(target: object, sharded: Path) -> None:
    outside = sharded.parent / "outside.safetensors"
    outside.write_bytes(next(iter(sharded.glob("*.safetensors"))).read_bytes())
    index: dict[str, dict[str, object]] = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"][NORM] = target
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(sharded, "is not the name of a .safetensors file in its folder")


def test_an_index_that_is_wrong(sharded: Path) -> None:
    path = sharded / "model.safetensors.index.json"
    index = index_of(sharded)
    path.write_text(json.dumps({"weight_map": index["weight_map"] | {"x": index["weight_map"][NORM]}}))
    refused(sharded, "lacks 'x', which model.safetensors.index.json promises")
    for text, said in [
        ("{}", "has no weight_map"),
        ('{"weight_map": []}', "has no weight_map"),
        ("{", "not valid JSON"),
    ]:
        path.write_text(text)
        refused(sharded, said)


def test_links_may_not_leave_the_folder_but_the_hubs_may(sharded: Path, tmp_path: Path) -> None:
    shard = sorted(sharded.glob("*.safetensors"))[0]
    outside = tmp_path / "outside.safetensors"
    shard.rename(outside)
    shard.symlink_to(outside)
    refused(sharded, "is a link that leaves its folder")
    cache = tmp_path / "hub" / "models--a--b"
    (cache / "snapshots").mkdir(parents=True)
    (cache / "blobs").mkdir()
    outside.rename(cache / "blobs" / "0123")
    snapshot = sharded.rename(cache / "snapshots" / "c0ffee")
    (snapshot / shard.name).unlink()
    (snapshot / shard.name).symlink_to("../../blobs/0123")
    loaded = on_meta()
    load_weights(loaded, Checkpoint.open(snapshot))
    assert same(loaded, build())
    (snapshot / shard.name).unlink()
    (snapshot / shard.name).symlink_to("missing.safetensors")
    refused(snapshot, "lacks the weight file")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "x.pth", "x.ckpt", "x.PKL", "x.pickle"])
def test_pickles_are_never_opened(name: str, tmp_path: Path) -> None:
    """A pipe stands for the file: opening it would block until the test's end."""
    os.mkfifo(tmp_path / name)
    refused(tmp_path, f"{tmp_path / name} is a pickle", UnsafeFileError)
    refused(tmp_path, "convert it with transformers' save_pretrained", UnsafeFileError)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    refused(tmp_path, "holds no weights: neither model.safetensors nor model.safetensors.index.json")
    refused(tmp_path / "absent", "is not a checkpoint folder")


def test_one_weight_file_of_another_name_will_do(tmp_path: Path) -> None:
    save_weights(build(), tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    load_weights(on_meta(), Checkpoint.open(tmp_path))
