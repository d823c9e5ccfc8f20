"""Metadata of strangers' files: each wrong value is one sentence that names its key."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoestring.errors import CheckpointError
from shoestring.model.gguf.config_reader import read_config
from shoestring.model.gguf.config_writer import write_config
from shoestring.model.gguf.file import GGUFFile, GGUFTensor
from shoestring.model.gguf.names import layout
from shoestring.model.gguf.types import F32
from shoestring.model.presets import TINY

TENSORS = {
    item.name: GGUFTensor(path=Path("m.gguf"), name=item.name, shape=item.shape, type=F32, start=0)
    for item in layout(TINY)
}
ARCH = "deepseek2."


def read(**changes):
    metadata = write_config(TINY) | {ARCH + key.replace("__", "."): value for key, value in changes.items()}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return read_config(GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors=TENSORS))


WRONG = {
    "lacks": ({"block_count": None}, "lacks the key deepseek2.block_count"),
    "text": ({"block_count": "three"}, "block_count = three is not a whole number"),
    "a flag": ({"block_count": True}, "block_count = True is not a whole number"),
    "a list": ({"attention__head_count": np.array([2, 2])}, r"head_count = \[2 2\] is not a whole number"),
    "zero": ({"embedding_length": 0}, "embedding_length = 0 is not"),
    "negative": ({"embedding_length": -5}, "embedding_length = -5 is not"),
    "too many layers": ({"block_count": 2**30}, "block_count = 1073741824 is not"),
    "too many experts": (
        {"expert_count": 2**16, "block_count": 4096},
        "expert_count = 65536 is not possible",
    ),
    "nan": ({"rope__freq_base": float("nan")}, "freq_base = nan is not a number"),
    "infinite": ({"expert_weights_scale": float("inf")}, "expert_weights_scale = inf is not a number"),
    "a number as flag": ({"expert_weights_norm": 1}, "expert_weights_norm = 1 is not true or false"),
    "gating": ({"expert_gating_func": 9}, "expert_gating_func = 9 is not one of 1, 2"),
    "rope": ({"rope__scaling__type": "longrope"}, "type = longrope is not one of none, linear, yarn"),
    "rope wider than the head": ({"rope__dimension_count": 16}, "key_length_mla = 16 is not"),
    "huge heads": ({"attention__key_length_mla": 2**26}, "key_length_mla = 67108864 is not"),
    "groups": ({"expert_group_count": 3}, "n_group = 3 must divide n_routed_experts = 8"),
    "top k": ({"expert_used_count": 99}, "num_experts_per_tok = 99 must be 1 to 4"),
    "only MTP layers": ({"nextn_predict_layers": 3}, "num_hidden_layers = 0 must be at least 1"),
    "small theta": ({"rope__freq_base": 0.5}, "rope_theta = 0.5 must be above 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named(case):
    changes, words = WRONG[case]
    with pytest.raises(CheckpointError, match=words) as caught:
        read(**changes)
    assert str(caught.value).startswith("m.gguf")


def test_another_architecture_is_named():
    file = GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata={"general.architecture": "mamba"}, tensors={})
    with pytest.raises(
        CheckpointError, match="of architecture 'mamba'; supported are deepseek2, llama, qwen2"
    ):
        read_config(file)
    with pytest.raises(CheckpointError, match="does not name its general"):
        read_config(replace(file, metadata={}))


def test_mtp_layers_are_not_counted():
    assert read(nextn_predict_layers=1).num_hidden_layers == TINY.num_hidden_layers - 1


def test_old_files_have_the_heads_own_sizes():
    config = read(
        attention__key_length_mla=None, attention__value_length_mla=None,
        attention__key_length=16, attention__value_length=8,
    )  # fmt: skip
    assert config.attention == TINY.attention


def test_any_values_give_a_model_or_a_sentence():
    chance = random.Random(0)
    values = [
        0,
        1,
        2,
        3,
        7,
        8,
        -1,
        2**31,
        2**63,
        0.0,
        -1.5,
        1e300,
        True,
        False,
        "",
        "yarn",
        "none",
        ["x"],
        np.arange(3),
    ]
    keys = [key for key in write_config(TINY) if key.startswith(ARCH)]
    for _ in range(3000):
        metadata = write_config(TINY)
        for key in chance.sample(keys, chance.randint(1, 3)):
            metadata[key] = chance.choice(values)
        try:
            read_config(GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors=TENSORS))
        except CheckpointError as error:
            assert str(error).startswith("m.gguf")  # noqa: PT017


def test_a_configuration_is_read_without_torch():
    code = "import sys, shoestring.model.gguf.config_reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
