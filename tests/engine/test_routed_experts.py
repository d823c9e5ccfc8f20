"""Where tokens went: what the model says of the whole text at once, whatever the engine did meanwhile."""

from dataclasses import replace

import pytest
import torch

from shoestring.engine.engine import Engine
from shoestring.engine.request import CompletionOutput, Request, SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.model.packed.copy import PackedCopy
from shoestring.model.presets import PRESETS, TINY
from shoestring.model.transformer import Transformer, initialize

CONFIG = replace(PRESETS["r1-mini"], vocab_size=60)
PROMPT = tuple(range(3, 40))


@pytest.fixture(scope="module")
def model() -> Transformer:
    made = initialize(Transformer(CONFIG), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for layer in made.model.layers[1:]:
            layer.mlp.gate.weight.mul_(20)  # clear choices, so that rounding decides none
    return made


def complete(of: Transformer, **settings) -> list[CompletionOutput]:
    engine = Engine(
        of, None, EngineSettings(**{"max_num_seqs": 8, "enable_return_routed_experts": True} | settings)
    )
    params = SamplingParams(n=3, max_tokens=25, seed=1, ignore_eos=True)
    for name in ("a", "b"):  # the second finds the first's prompt in the cache
        engine.add_request(Request(request_id=name, prompt_token_ids=PROMPT, sampling_params=params))
    last = {}
    while engine.has_unfinished():
        last |= {output.request_id: output for output in engine.step()}
    assert all(output.finished for output in last.values())
    return [completion for output in last.values() for completion in output.outputs]


@pytest.mark.parametrize(
    ("packed", "settings"),
    [
        (False, {"speculation": "off"}),
        (True, {"speculation": "off"}),
        (False, {"speculation": "mtp", "adaptive_speculation": False}),
        (False, {"speculation": "off", "max_num_batched_tokens": 11}),
        (True, {"speculation": "off", "max_num_batched_tokens": 11}),
        (
            True,
            {
                "speculation": "off",
                "kv_cache_memory_bytes": 70_000,
            },  # too little for all: some are computed twice
        ),
    ],
)
def test_it_is_what_one_pass_over_the_text_gives(model, packed, settings) -> None:
    with torch.inference_mode():
        for completion in complete(PackedCopy(model).model if packed else model, **settings):
            ids = torch.tensor([[*PROMPT, *completion.token_ids]])
            assert completion.routed_experts.shape == (ids.shape[1] - 1, 2, 2)
            for place, layer in enumerate(CONFIG.moe_layers):
                wanted = model.features(ids).routings[layer].experts_NK[:-1].sort(-1).values
                assert torch.equal(completion.routed_experts[:, place].sort(-1).values.long(), wanted)


def test_replaying_it_gives_the_engine_s_probabilities(model) -> None:
    """Even where the trainer would have sent a token elsewhere."""
    engine_model = PackedCopy(model).model
    completion = complete(engine_model, speculation="off")[0]
    ids = torch.tensor([[*PROMPT, *completion.token_ids]])
    kept = {layer: completion.routed_experts[:, i].long() for i, layer in enumerate(CONFIG.moe_layers)}
    with torch.inference_mode():
        own = model.features(ids[:, :-1]).hidden_BTD
        same = model.features(ids[:, :-1], experts=kept).hidden_BTD
        other = model.features(ids[:, :-1], experts={k: (v + 1) % 8 for k, v in kept.items()}).hidden_BTD
    assert torch.allclose(own, same, atol=1e-5)
    assert not torch.allclose(own, other, atol=1e-3)


def test_only_where_it_is_asked_for_and_there_are_experts(model) -> None:
    assert all(c.routed_experts is None for c in complete(model, enable_return_routed_experts=False))
    dense = initialize(Transformer(replace(TINY, moe=None, vocab_size=60)), torch.Generator().manual_seed(0))
    assert all(c.routed_experts is None for c in complete(dense.eval()))


@pytest.mark.parametrize("settings", [{}, {"max_num_batched_tokens": 11}, {"speculation": "mtp"}])
def test_a_request_may_ask_for_the_experts_of_its_prompt_alone(model, settings) -> None:
    engine = Engine(model, None, EngineSettings(**{"max_num_seqs": 8, "speculation": "off"} | settings))
    params = SamplingParams(max_tokens=1, prompt_logprobs=0)
    for name in ("asks", "plain"):
        request = Request(
            request_id=name, prompt_token_ids=PROMPT, sampling_params=params, prompt_experts=name == "asks"
        )
        engine.add_request(request)
    last = {}
    while engine.has_unfinished():
        last |= {output.request_id: output for output in engine.step()}
    assert last["plain"].prompt_experts is None
    experts = last["asks"].prompt_experts
    assert experts.shape == (len(PROMPT), len(CONFIG.moe_layers), CONFIG.moe.num_experts_per_tok)
    with torch.inference_mode():
        routings = model.features(torch.tensor([PROMPT])).routings
    for place, layer in enumerate(CONFIG.moe_layers):
        assert torch.equal(
            experts[:, place].sort(-1).values.long(), routings[layer].experts_NK.sort(-1).values
        )
