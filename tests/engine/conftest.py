"""Tiny random models and the naive loop that the engine is compared with."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from shoestring.engine.engine import Engine
from shoestring.engine.request import CompletionOutput, Request
from shoestring.model.config import GQAConfig, ModelConfig, MoEConfig, RopeConfig
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialize

MLA = replace(TINY, initializer_range=0.2)
"""V3-shaped: MLA, mixture of experts, one MTP module; weights so large that logits are well apart."""
GQA = replace(
    MLA,
    model_type="qwen2",
    attention=GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
    moe=None,
    rope=RopeConfig(),
    tie_word_embeddings=True,
    num_nextn_predict_layers=0,
)

QK_NORM = replace(
    GQA,
    model_type="qwen3_moe",
    attention=GQAConfig(num_key_value_heads=1, head_dim=24, qk_norm=True),
    moe=MoEConfig(
        n_routed_experts=6,
        n_shared_experts=0,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        mlp_only_layers=(1,),
        scoring_func="softmax",
        topk_method="greedy",
    ),
)
"""Qwen3-shaped: norms of queries and keys, heads wider than hidden_size, experts in all layers but one."""


def build(config: ModelConfig) -> Transformer:
    return initialize(Transformer(config), torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def mla() -> Transformer:
    return build(MLA)


@pytest.fixture(scope="session")
def gqa() -> Transformer:
    return build(GQA)


@pytest.fixture(scope="session")
def qk_norm() -> Transformer:
    return build(QK_NORM)


@pytest.fixture(scope="session", params=["mla", "gqa", "qk_norm"])
def model(
    request: pytest.FixtureRequest, mla: Transformer, gqa: Transformer, qk_norm: Transformer
) -> Transformer:
    return {"mla": mla, "gqa": gqa, "qk_norm": qk_norm}[request.param]


@pytest.fixture(scope="session")
def naive() -> Callable[[Transformer, list[int], int], list[int]]:
    """Greedy decoding with a whole forward pass for every token; asked again, it remembers."""
    known: dict[tuple[object, ...], list[int]] = {}  # by the model itself, so that its id stays its own

    @torch.inference_mode()
    def decode(model: Transformer, prompt: list[int], count: int) -> list[int]:
        key = (model, model.head_weight_WD._version, count, *prompt)
        if key not in known:
            ids = list(prompt)
            for _ in range(count):
                ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
            known[key] = ids[-count:]
        return known[key]

    return decode


@pytest.fixture(scope="session")
def serve() -> Callable[..., dict[str, tuple[CompletionOutput, ...]]]:
    """Add requests and step until all are done: the final outputs by request id."""

    def run(engine: Engine, requests: list[Request]) -> dict[str, tuple[CompletionOutput, ...]]:
        for request in requests:
            engine.add_request(request)
        done = {}
        while engine.has_unfinished():
            done |= {output.request_id: output.outputs for output in engine.step() if output.finished}
        assert engine.counters.pages_used == 0
        return done

    return run
