"""Throughput figures that add up, and limits that are numbers."""

import pytest
import torch

from shoestring.device import Runtime
from shoestring.engine.engine import Engine
from shoestring.engine.measure import (
    library_text,
    longest_request,
    measure_limits,
    measure_throughput,
    percentile,
    step_bytes,
    windows,
    without_drafts,
)
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError

TEXT = list(range(3, 40))


def test_figures_of_a_tiny_engine(model):
    settings = EngineSettings(max_num_seqs=4, max_num_batched_tokens=16, adaptive_speculation=False)
    engine = Engine(model, None, settings)
    for number in (1, 3):
        row = measure_throughput(engine, TEXT, concurrency=number, prompt_tokens=20, output_tokens=6)
        assert row.concurrency == number
        assert row.prompt_tokens_per_s > 0
        assert row.output_tokens_per_s > 0
        assert 0 < row.first_token_s <= row.first_token_s_p95
        assert 0 < row.between_tokens_s <= row.between_tokens_s_p95
        assert row.drafts
        assert row.acceptance is None or 0 <= row.acceptance <= 1
        assert engine.counters.pages_used == 0
        assert not engine.has_unfinished()
    with pytest.raises(ConfigError, match="5 requests"):
        measure_throughput(engine, TEXT, concurrency=5, prompt_tokens=20, output_tokens=6)


def test_drafts_are_left_out_and_come_back(model):
    engine = Engine(model, None, EngineSettings(max_num_seqs=2, adaptive_speculation=False))
    sizes = {"concurrency": 2, "prompt_tokens": 20, "output_tokens": 6}
    with without_drafts(engine):
        row = measure_throughput(engine, TEXT, **sizes)
    assert (row.drafts, row.acceptance, engine.counters.drafted_tokens) == (False, None, 0)
    assert measure_throughput(engine, TEXT, **sizes).drafts
    assert engine.speculation is not None


def test_prompts_are_parts_of_a_text_of_the_standard_library():
    text = library_text(50_000)
    assert len(text) == 50_000
    assert "import" in text
    assert windows([1, 2, 3, 4, 5, 6], 3, 2) == [(1, 2), (3, 4), (5, 6)]
    assert windows([1, 2, 3], 2, 5) == [(1, 2, 3, 1, 2), (2, 3, 1, 2, 3)]


def test_a_request_never_outgrows_what_was_counted(model):
    settings = EngineSettings(max_num_seqs=4, max_num_batched_tokens=8, speculation="off")
    longest = longest_request(settings, 4, 20, 6)
    engine = Engine(model, None, settings)
    measure_throughput(engine, TEXT, concurrency=4, prompt_tokens=20, output_tokens=6)
    assert engine.counters.failed == engine.counters.preemptions == 0
    assert longest > 20 + 6


def test_bytes_of_a_step_grow_with_the_experts_that_are_met(mla):
    engine = Engine(mla, None, EngineSettings(max_num_seqs=2))
    moe = mla.config.moe
    layers = [
        layer.mlp.experts
        for layer in mla.model.layers[: mla.config.num_hidden_layers]
        if hasattr(layer.mlp, "experts")
    ]
    experts = sum(parameter.nbytes for layer in layers for parameter in layer.parameters())
    none, one, all_ = (step_bytes(engine, rows, 0) for rows in (0, 1, 10_000))
    assert one - none == pytest.approx(experts * moe.num_experts_per_tok / moe.n_routed_experts)
    assert all_ - none == pytest.approx(experts)
    everything = sum(tensor.nbytes for tensor in mla.state_dict().values())
    assert all_ < everything  # the MTP module and the embedding are not read
    assert step_bytes(engine, 0, 10) > none


def test_percentile():
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([1.0], 0.95) == 1.0
    assert percentile(list(range(100)), 0.95) == 95


def test_limits_of_this_machine(monkeypatch):
    from shoestring.engine import measure

    monkeypatch.setattr(measure, "READ_BYTES", 1_000_000)
    monkeypatch.setattr(measure, "INT8_SHAPE", (16, 64, 64))
    monkeypatch.setattr(measure, "measure_peak", lambda _runtime: 1e9)
    limits = measure_limits(Runtime(device=torch.device("cpu"), compute_dtype=torch.float32))
    assert limits.read_bytes_per_s > 1e6
    assert limits.int8_ops_per_s is None or limits.int8_ops_per_s > 1e5
