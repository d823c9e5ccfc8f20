"""Tiny models of three families, with LoRA adapters that change something."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from shoestring.model.config import GQAConfig, ModelConfig, RopeConfig
from shoestring.model.lora import LoraConfig, add_adapters
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

V3 = replace(PRESETS["tiny"], initializer_range=0.2)
QWEN = replace(
    V3,
    model_type="qwen2",
    moe=None,
    num_nextn_predict_layers=0,
    attention=GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
    rope=RopeConfig(),
    tie_word_embeddings=True,
)
QWEN3 = replace(
    QWEN, model_type="qwen3", attention=GQAConfig(num_key_value_heads=1, head_dim=24, qk_norm=True)
)
RANK3 = LoraConfig(rank=3, alpha=6.0)


@pytest.fixture(params=[V3, QWEN, QWEN3], ids=["v3", "qwen2", "qwen3"])
def family(request: pytest.FixtureRequest) -> ModelConfig:
    return request.param


@pytest.fixture
def dense() -> ModelConfig:
    return QWEN


@pytest.fixture
def rank3() -> LoraConfig:
    return RANK3


@pytest.fixture
def new_model() -> Callable[..., Transformer]:
    """Makes the same random model each time."""

    def make(config: ModelConfig = V3) -> Transformer:
        return initialize(Transformer(config), torch.Generator().manual_seed(0))

    return make


@pytest.fixture
def adapted(new_model: Callable[..., Transformer]) -> Callable[..., Transformer]:
    """Makes a model whose adapters do change something."""

    def make(config: ModelConfig = V3, settings: LoraConfig = RANK3, seed: int = 2) -> Transformer:
        model = new_model(config)
        add_adapters(model, settings, torch.Generator().manual_seed(seed))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(seed))
        return model

    return make


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 256, (2, 19), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def logits(ids: torch.Tensor) -> Callable[[Transformer], torch.Tensor]:
    """Computes the logits of a model for `ids`."""

    def compute(model: Transformer) -> torch.Tensor:
        with torch.no_grad():
            return model(ids)

    return compute
