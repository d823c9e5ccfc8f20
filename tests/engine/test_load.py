"""What serving takes is known, and refused, before weights are read."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from shoestring.device import Runtime
from shoestring.engine import load
from shoestring.engine.settings import EngineSettings
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.hf.folder import save_model
from shoestring.model.memory import RESERVE_BYTES
from shoestring.model.packed.quantize import quantize_folder

RUNTIME = Runtime(device=torch.device("cpu"), compute_dtype=torch.float32)
ONE = EngineSettings(max_num_seqs=1, max_model_len=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mla):
    path = tmp_path_factory.mktemp("load") / "model"
    save_model(mla, path)
    return path


@pytest.fixture(scope="module")
def packed(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "int4"
    quantize_folder(folder, path, "int4")
    return path


def give(monkeypatch, free_bytes):
    monkeypatch.setattr(load, "available_bytes", lambda _device: free_bytes)


def test_weights_are_counted_as_they_are_stored(folder, packed, mla, tmp_path):
    parameters = sum(parameter.nbytes for parameter in mla.parameters())
    assert load.weight_bytes(folder, None) == parameters
    save_model(mla, tmp_path / "half", dtype=torch.bfloat16)
    assert load.weight_bytes(tmp_path / "half", None) == parameters // 2
    assert load.weight_bytes(packed, None) == load.weight_bytes(folder, "int4") < parameters


def test_a_model_that_does_not_fit_is_refused_with_what_would(folder, packed, monkeypatch):
    need = {form: load.memory(folder, form, ONE, torch.float32).total for form in (None, "int8", "int4")}
    give(monkeypatch, need[None])
    assert load.fit(folder, None, ONE, RUNTIME).kv_cache_memory_bytes > 0
    give(monkeypatch, need["int8"])
    with pytest.raises(ConfigError, match=r"would fit: int8 .* GB, int4"):
        load.load_engine(folder, RUNTIME, settings=ONE)
    give(monkeypatch, RESERVE_BYTES)
    with pytest.raises(ConfigError, match="even quantized"):
        load.load_engine(folder, RUNTIME, settings=ONE)
    with pytest.raises(ConfigError, match="smaller model"):
        load.load_engine(packed, RUNTIME, settings=ONE)


def test_a_cache_shrinks_to_what_is_free_but_not_below_one_request(folder, monkeypatch):
    many = replace(ONE, max_num_seqs=64)
    need = load.memory(folder, None, many, torch.float32)
    give(monkeypatch, need.total - need.cache // 2)
    fitted = load.fit(folder, None, many, RUNTIME)
    assert need.cache // 4 < fitted.kv_cache_memory_bytes <= need.cache // 2 + 1
    with pytest.raises(ConfigError):
        load.fit(folder, None, replace(many, kv_cache_memory_bytes=need.cache), RUNTIME)


def test_a_target_picks_the_most_exact_form(folder, packed):
    need = {form: load.memory(folder, form, ONE, torch.float32).total for form in (None, "int8")}
    assert load.choose(folder, need[None], ONE, RUNTIME) is None
    assert load.choose(folder, need[None] - 1, ONE, RUNTIME) == "int8"
    with pytest.raises(ConfigError, match="needs"):
        load.choose(folder, RESERVE_BYTES, ONE, RUNTIME)
    assert load.choose(packed, need[None], ONE, RUNTIME) is None
    with pytest.raises(ConfigError, match="packed already"):
        load.choose(packed, RESERVE_BYTES, ONE, RUNTIME)
    assert 0 < load.read_bytes_per_token(folder, "int4") < load.weight_bytes(folder, "int4")


def test_generation_settings_are_read_and_checked(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    path = tmp_path / "m" / "generation_config.json"
    path.write_text(json.dumps({"temperature": 0.3, "top_k": 40, "transformers_version": "x", "top_p": None}))
    assert load.default_sampling(tmp_path / "m") == {"temperature": 0.3, "top_k": 40}
    path.write_text(json.dumps({"temperature": -1}))
    with pytest.raises(CheckpointError, match=r"generation_config.json: temperature"):
        load.default_sampling(tmp_path / "m")
    path.unlink()
    assert load.default_sampling(tmp_path / "m") == {}
