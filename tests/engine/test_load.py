"""Memory is counted, and too little of it refused, before weights are read."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from shoestring.device import Runtime
from shoestring.engine import load
from shoestring.engine.settings import EngineSettings
from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.memory import RESERVE_BYTES
from shoestring.model.packed.quantize import load_for_inference, quantize_checkpoint

RUNTIME = Runtime(device=torch.device("cpu"), compute_dtype=torch.float32)
ONE = EngineSettings(max_num_seqs=1, max_model_len=64)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, mla):
    path = tmp_path_factory.mktemp("load") / "model"
    save_model(mla, path)
    return Checkpoint.open(path)


@pytest.fixture(scope="module")
def packed(plain, tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "int4"
    quantize_checkpoint(plain, path, "int4")
    return Checkpoint.open(path)


def give(monkeypatch, free_bytes):
    monkeypatch.setattr(load, "available_bytes", lambda _device: free_bytes)


def test_weights_are_counted_as_they_are_stored(plain, packed, mla, tmp_path):
    parameters = sum(parameter.nbytes for parameter in mla.parameters())
    assert plain.weight_bytes() == parameters
    save_model(mla, tmp_path / "half", dtype=torch.bfloat16)
    assert Checkpoint.open(tmp_path / "half").weight_bytes() == parameters // 2
    assert packed.weight_bytes() == plain.weight_bytes("int4") < parameters


def test_a_model_that_does_not_fit_is_refused_with_what_would(plain, packed, monkeypatch):
    need = {
        form: load.required_memory(plain, form, ONE, torch.float32).total for form in (None, "int8", "int4")
    }
    give(monkeypatch, need[None])
    assert load.fit(plain, None, ONE, RUNTIME).kv_cache_memory_bytes > 0
    give(monkeypatch, need["int8"])
    with pytest.raises(ConfigError, match=r"would fit: int8 .* GB, int4"):
        load.load_engine(plain, RUNTIME, settings=ONE)
    give(monkeypatch, RESERVE_BYTES)
    with pytest.raises(ConfigError, match="even quantized"):
        load.load_engine(plain, RUNTIME, settings=ONE)
    with pytest.raises(ConfigError, match="smaller model"):
        load.load_engine(packed, RUNTIME, settings=ONE)


def test_a_cache_shrinks_to_what_is_free_but_not_below_one_request(plain, monkeypatch):
    many = replace(ONE, max_num_seqs=64)
    need = load.required_memory(plain, None, many, torch.float32)
    give(monkeypatch, need.total - need.cache // 2)
    fitted = load.fit(plain, None, many, RUNTIME)
    assert need.cache // 4 < fitted.kv_cache_memory_bytes <= need.cache // 2 + 1
    with pytest.raises(ConfigError):
        load.fit(plain, None, replace(many, kv_cache_memory_bytes=need.cache), RUNTIME)


def test_a_target_picks_the_most_exact_form(plain, packed):
    need = {form: load.required_memory(plain, form, ONE, torch.float32).total for form in (None, "int8")}
    assert load.choose(plain, need[None], ONE, RUNTIME) is None
    assert load.choose(plain, need[None] - 1, ONE, RUNTIME) == "int8"
    with pytest.raises(ConfigError, match="needs"):
        load.choose(plain, RESERVE_BYTES, ONE, RUNTIME)
    assert load.choose(packed, need[None], ONE, RUNTIME) is None
    with pytest.raises(ConfigError, match="packed already"):
        load.choose(packed, RESERVE_BYTES, ONE, RUNTIME)


def test_generation_settings_are_read_and_checked(plain, tmp_path):
    shutil.copytree(plain.folder, tmp_path / "m")
    path = tmp_path / "m" / "generation_config.json"
    path.write_text(json.dumps({"temperature": 0.3, "top_k": 40, "transformers_version": "x", "top_p": None}))
    assert load.default_sampling(Checkpoint.open(tmp_path / "m")) == {"temperature": 0.3, "top_k": 40}
    path.write_text(json.dumps({"max_new_tokens": 7, "max_length": 20}))
    assert load.default_sampling(Checkpoint.open(tmp_path / "m")) == {"max_tokens": 7}
    path.write_text(json.dumps({"temperature": -1}))
    with pytest.raises(CheckpointError, match=r"generation_config.json: temperature"):
        load.default_sampling(Checkpoint.open(tmp_path / "m"))
    path.unlink()
    assert load.default_sampling(Checkpoint.open(tmp_path / "m")) == {}


def test_an_unknown_quantization_is_named(plain):
    with pytest.raises(ConfigError, match="quantization 'awq' is not one of int8, int4"):
        load.load_engine(plain, RUNTIME, quantization="awq", settings=ONE)
    with pytest.raises(ConfigError, match="quantization 'awq' is not one of int8, int4"):
        load_for_inference(plain, "awq")
