"""The copy of a model that samples for it: the same values, now and after every change."""

from dataclasses import replace

import pytest
import torch

from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.model.config import MLAConfig, ModelConfig
from shoestring.model.packed.block import PackedBlock
from shoestring.model.packed.copy import PackedCopy
from shoestring.model.presets import DEMO, PRESETS, TINY
from shoestring.model.transformer import Transformer, initialize

assert isinstance(DEMO.attention, MLAConfig)
MLA = replace(
    DEMO,
    vocab_size=100,
    attention=replace(DEMO.attention, q_lora_rank=64, kv_lora_rank=64, qk_nope_head_dim=32),
    num_nextn_predict_layers=1,
)
ODD = replace(TINY, vocab_size=90)  # its heads are too small for groups of 32
CONFIGS = {"mla": MLA, "tied": replace(MLA, tie_word_embeddings=True), "odd": ODD, "r1": PRESETS["r1-mini"]}


def model(config: ModelConfig, seed: int = 0) -> Transformer:
    return initialize(Transformer(config), torch.Generator().manual_seed(seed)).train()


def answers(of: Transformer) -> list[tuple[tuple[int, ...], tuple[float, ...]]]:
    engine = Engine(of, None, EngineSettings(max_num_seqs=8, speculation="off"))
    params = SamplingParams(n=4, max_tokens=30, seed=3, logprobs=0, ignore_eos=True, output_kind="final_only")
    engine.add_request(Request(request_id="a", prompt_token_ids=tuple(range(5, 40)), sampling_params=params))
    outputs = []
    while engine.has_unfinished():
        outputs += engine.step()
    return [(c.token_ids, c.token_logprobs) for c in outputs[0].outputs]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_it_answers_like_the_original_and_follows_it(config: ModelConfig) -> None:
    original = model(config)
    copied = PackedCopy(original)
    assert copied.model.config.num_nextn_predict_layers == 0
    for seed in (0, 1):
        with torch.no_grad():  # as an optimizer does
            for name, tensor in model(config, seed).state_dict().items():
                original.state_dict()[name].copy_(tensor)
        copied.refresh()
        for (ids, logprobs), (own_ids, own_logprobs) in zip(
            answers(copied.model), answers(original), strict=True
        ):
            assert ids == own_ids
            assert logprobs == pytest.approx(own_logprobs, abs=1e-5)


def test_without_refresh_it_stays_as_it_was() -> None:
    original = model(MLA)
    copied = PackedCopy(original)
    before = answers(copied.model)
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.mul_(1.5)
    assert answers(copied.model) == before
    copied.refresh()
    assert answers(copied.model) != before


def test_the_small_reasoning_models_are_packed_whole() -> None:
    for name in ("r1-mini", "r1-mini-small"):
        blocks = PackedCopy(model(PRESETS[name])).model.model.layers
        assert all(isinstance(block, PackedBlock) for block in blocks)


def test_what_it_suits() -> None:
    assert PackedCopy.suits(model(ODD))
    assert not PackedCopy.suits(Transformer(ODD, torch.bfloat16))
