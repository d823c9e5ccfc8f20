"""Sampling that a GGUF file recommends, as generation_config.json and back."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoestring.engine.load import default_sampling
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.sampling import save_sampling, write_sampling
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.presets import TINY

CONFIG = replace(TINY, bos_token_id=1, eos_token_id=(2, 7))


def save(folder: Path, **keys) -> dict:
    metadata = {f"general.sampling.{key}": value for key, value in keys.items()}
    save_sampling(GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors={}), CONFIG, folder)
    file = folder / "generation_config.json"
    return json.loads(file.read_text()) if file.exists() else {}


def test_names_are_those_of_generation_config(tmp_path):
    said = {
        "temp": float(np.float32(0.7)),
        "top_k": 20,
        "top_p": float(np.float32(0.8)),
        "penalty_repeat": 1.5,
    }
    fields = save(tmp_path, **said)
    assert fields == {
        "bos_token_id": 1,
        "eos_token_id": [2, 7],
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 20,
        "top_p": 0.8,
        "repetition_penalty": 1.5,
    }
    sampling = default_sampling(Checkpoint.open(tmp_path))
    assert sampling == {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.5}
    back = write_sampling(fields)
    assert {key: back[f"general.sampling.{key}"] for key in said} == pytest.approx(said)


def test_greedy_is_said_so(tmp_path):
    assert save(tmp_path, temp=0.0)["do_sample"] is False
    assert write_sampling({"do_sample": False, "temperature": 0.6}) == {}


def test_what_has_no_counterpart_is_named(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        assert save(tmp_path, mirostat=2, xtc_probability=0.0, temp="warm") == {}
    assert "general.sampling.mirostat, which has no counterpart" in caplog.text


def test_without_a_recommendation_there_is_no_file(tmp_path):
    assert save(tmp_path) == {}
    assert not (tmp_path / "generation_config.json").exists()
