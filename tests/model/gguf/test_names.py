"""The layouts name exactly the tensors of our models, under names that llama.cpp has, and lose no row."""

from dataclasses import replace

import pytest
import torch

from shoestring.model.gguf.names import HeadRows, layout
from shoestring.model.hf.names import stored_views
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer

gguf = pytest.importorskip("gguf")
ARCHITECTURE = {
    **{"llama": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "qwen3_moe": "QWEN3MOE"},
    **{"deepseek_v2": "DEEPSEEK2", "deepseek_v3": "DEEPSEEK2"},
}
SMALL = ["tiny", "demo", "deepseek-v2-lite", "r1-distill-qwen-1.5b", "r1-distill-llama-8b"]


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("split_kv_b", [True, False])
def test_every_tensor_of_the_model_is_there_once_with_its_shape(name, split_kv_b):
    config = PRESETS[name]
    without_mtp = replace(config, num_nextn_predict_layers=0)  # llama.cpp does not run DeepSeek's
    with torch.device("meta"):
        views = stored_views(Transformer(without_mtp))
    expected = {key: tuple(view.shape) for key, view in views.items()}
    items = list(layout(config, split_kv_b=split_kv_b))
    assert {source: item.source_shape for item in items for source in item.sources} == expected
    stored = sum(torch.Size(item.shape).numel() for item in items)
    assert stored == sum(torch.Size(shape).numel() for shape in expected.values())


@pytest.mark.parametrize("name", PRESETS)
def test_names_are_llama_cpps(name):
    config = replace(PRESETS[name], num_hidden_layers=5)
    arch = gguf.MODEL_ARCH[ARCHITECTURE[config.model_type]]
    known = {
        gguf.TENSOR_NAMES[tensor].format(bid=layer)
        for tensor in gguf.MODEL_TENSORS[arch]
        for layer in range(5)
    }
    names = [item.name for item in layout(config)]
    assert len(names) == len(set(names))
    # The library writes exp_probs_b with its suffix, unlike llama.cpp's other names.
    assert {name.rpartition(".")[0] for name in names} <= known


def test_halves_become_neighbors():
    q = next(i for i in layout(PRESETS["r1-distill-llama-8b"]) if i.name == "blk.0.attn_q.weight")
    assert q.heads is not None
    assert q.heads.size == 128
    assert q.heads.index[:6] == (0, 64, 1, 65, 2, 66)
    assert sorted(q.heads.index) == list(range(128))


def test_qwen2_and_interleaved_heads_stay():
    for name in ("r1-distill-qwen-1.5b", "tiny"):
        kept = [i for i in layout(PRESETS[name]) if ".attn_q" in i.name or ".attn_k." in i.name]
        assert kept
        assert all(item.heads is None for item in kept)


def test_kv_b_is_split_into_keys_and_values():
    items = {item.name: item for item in layout(PRESETS["deepseek-v2-lite"])}
    keys, values = items["blk.3.attn_k_b.weight"], items["blk.3.attn_v_b.weight"]
    assert (keys.shape, values.shape) == ((16, 512, 128), (16, 128, 512))
    assert keys.heads == HeadRows(size=256, index=range(128), transpose=True)
    assert values.heads == HeadRows(size=256, index=range(128, 256))
