"""llama.cpp itself loads what is exported and computes the same: logits, greedy tokens, and text to ids."""

import ctypes
import sysconfig
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig, RopeConfig
from shoestring.model.gguf.exporter import export_gguf
from shoestring.model.gguf.importer import import_gguf
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.presets import DEMO, TINY
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.bpe import Tokenizer

llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed", exc_type=ImportError)

F32 = 0  # GGML's number, for a cache without rounding

YARN = RopeConfig(
    rope_type="yarn", interleave=True, factor=8.0, original_max_position_embeddings=16,
    mscale=0.707, mscale_all_dim=0.707,
)  # fmt: skip
LLAMA3 = RopeConfig(rope_theta=5e5, rope_type="llama3", factor=8.0, original_max_position_embeddings=16)
GQA_YARN = RopeConfig(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)
LITE = replace(TINY, num_nextn_predict_layers=0)
V2 = MoEConfig(
    n_routed_experts=8, n_shared_experts=2, num_experts_per_tok=3, moe_intermediate_size=32,
    first_k_dense_replace=1, scoring_func="softmax", topk_method="greedy", norm_topk_prob=False,
    routed_scaling_factor=1.7,
)  # fmt: skip
MLA_PLAIN = MLAConfig(
    q_lora_rank=None, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16
)
QWEN = replace(
    LITE, model_type="qwen2", moe=None, rope=RopeConfig(), num_attention_heads=4,
    attention=GQAConfig(num_key_value_heads=2, head_dim=8, qkv_bias=True), tie_word_embeddings=True,
)  # fmt: skip
LLAMA = replace(
    QWEN,
    model_type="llama",
    tie_word_embeddings=False,
    attention=GQAConfig(num_key_value_heads=2, head_dim=12),
)

QWEN3_EXPERTS = MoEConfig(
    n_routed_experts=4, n_shared_experts=0, num_experts_per_tok=2, moe_intermediate_size=32,
    scoring_func="softmax", topk_method="greedy",
)  # fmt: skip
NORMED = GQAConfig(num_key_value_heads=2, head_dim=20, qk_norm=True)

FAMILIES: dict[str, ModelConfig] = {
    "demo": DEMO,
    "groups": TINY,
    "v3-yarn": replace(LITE, rope=replace(YARN, mscale=1.0, mscale_all_dim=1.0)),
    "v2-lite-yarn": replace(LITE, model_type="deepseek_v2", attention=MLA_PLAIN, moe=V2, rope=YARN),
    "halves": replace(LITE, rope=replace(YARN, interleave=False)),
    "dense-mla": replace(LITE, moe=None),
    "qwen2": QWEN,
    "qwen3": replace(QWEN, model_type="qwen3", attention=NORMED),
    "qwen3-yarn": replace(
        QWEN, model_type="qwen3", attention=NORMED, rope=replace(GQA_YARN, attention_factor=1.0)
    ),
    "qwen3-moe": replace(QWEN, model_type="qwen3_moe", attention=NORMED, moe=QWEN3_EXPERTS),
    "qwen2-yarn": replace(QWEN, rope=GQA_YARN),
    "llama3": replace(LLAMA, rope=LLAMA3),
    "llama-linear": replace(LLAMA, rope=RopeConfig(rope_type="linear", factor=3.0)),
    "llama-biases": replace(LLAMA, attention=replace(LLAMA.attention, qkv_bias=True, o_bias=True)),
}


def random_model(config: ModelConfig, scale: float = 1.3) -> Transformer:
    """Weights large enough that every part matters: biases, norms and routing included."""
    generator = torch.Generator().manual_seed(1)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, scale * parameter.shape[-1] ** -0.5, generator=generator)
            else:
                parameter.uniform_(0.5, 1.5, generator=generator)
        for buffer in model.buffers():
            buffer.normal_(0, 0.1, generator=generator)
    return model.eval()


class Theirs:
    """llama.cpp with a float32 cache, on token ids."""

    def __init__(self, path: Path) -> None:
        self.llama = llama_cpp.Llama(
            str(path), n_ctx=128, n_threads=1, verbose=False, type_k=F32, type_v=F32, flash_attn=False
        )

    def logits(self, ids: list[int]) -> np.ndarray:
        """Of the token after `ids`, which continue what came before."""
        self.llama.eval(ids)
        pointer = llama_cpp.llama_get_logits_ith(self.llama.ctx, -1)
        return np.ctypeslib.as_array(
            ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self.llama.n_vocab(),)
        ).copy()

    def greedy(self, prompt: list[int], count: int) -> list[int]:
        self.llama.reset()
        ids, found = prompt, []
        for _ in range(count):
            ids = [int(self.logits(ids).argmax())]
            found += ids
        return found


def greedy(model: Transformer, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Continuations of prompts of one length, all at once."""
    cache = model.new_cache(len(prompts), len(prompts[0]) + count)
    ids, found = torch.tensor(prompts), []
    with torch.no_grad():
        for _ in range(count):
            ids = model(ids, cache)[:, -1].argmax(-1, keepdim=True)
            found.append(ids)
    return torch.cat(found, dim=1).tolist()


def prompts(config: ModelConfig, count: int, length: int) -> list[list[int]]:
    return torch.randint(
        config.vocab_size, (count, length), generator=torch.Generator().manual_seed(2)
    ).tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_llama_cpp_computes_the_same(family, tmp_path):
    model = random_model(FAMILIES[family])
    export_gguf(model, tmp_path / "m.gguf", "f32")
    theirs = Theirs(tmp_path / "m.gguf")
    ids = torch.randint(model.config.vocab_size, (60,), generator=torch.Generator().manual_seed(3)).tolist()
    with torch.no_grad():
        ours = model(torch.tensor([ids]))[0, -1].numpy()
    np.testing.assert_allclose(theirs.logits(ids), ours, atol=2e-3 * np.abs(ours).max())
    asked = prompts(model.config, 4, 5)
    assert [theirs.greedy(prompt, 16) for prompt in asked] == greedy(model, asked, 16)


def test_a_hundred_prompts_give_the_same_greedy_tokens(tmp_path):
    model = random_model(replace(DEMO, num_nextn_predict_layers=0, vocab_size=512))
    export_gguf(model, tmp_path / "m.gguf", "f32")
    theirs = Theirs(tmp_path / "m.gguf")
    asked = prompts(model.config, 100, 6)
    assert [theirs.greedy(prompt, 8) for prompt in asked] == greedy(model, asked, 8)


@pytest.mark.parametrize(("kind", "most"), [("bf16", 0.01), ("q8_0", 0.02), ("q4_0", 0.02)])
def test_llama_cpp_reads_our_quantized_weights_as_we_do(kind, most, tmp_path):
    """What differs is only that llama.cpp rounds activations too."""
    config = replace(
        DEMO,
        num_nextn_predict_layers=0,
        attention=MLAConfig(
            q_lora_rank=64, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32
        ),
        moe=None,  # a router would turn small differences into large ones
    )
    export_gguf(random_model(config, 0.6), tmp_path / "m.gguf", kind)
    import_gguf(tmp_path / "m.gguf", tmp_path / "folder", dtype=torch.float32)
    ids = [5, 17, 300, 44, 900, 12, 8]
    with torch.no_grad():
        ours = load_model(Checkpoint.open(tmp_path / "folder"))(torch.tensor([ids]))[0, -1].numpy()
    theirs = Theirs(tmp_path / "m.gguf").logits(ids)
    assert np.linalg.norm(theirs - ours) < most * np.linalg.norm(ours)


def test_llama_cpp_splits_text_as_our_tokenizer_does(tmp_path):
    source = Path(sysconfig.get_path("stdlib"), "argparse.py").read_text(encoding="utf-8")
    tokenizer = Tokenizer.train([source], 700)
    tokenizer.save(tmp_path)
    config = replace(LITE, vocab_size=704)
    export_gguf(random_model(config), tmp_path / "m.gguf", "f32", tokenizer_files=tmp_path)
    llama = Theirs(tmp_path / "m.gguf").llama
    texts = [
        source[:4000],
        "It's 12345 naïve\n\n  x",
        "我想在apple工作1314天",
        "<think>",
        "a" * 300,
        " \n \t ",
    ]
    texts.append("<｜User｜>")  # typed by a user: never the control token
    for text in texts:
        theirs = llama.tokenize(text.encode(), add_bos=False, special=False)
        if text == "<think>":  # llama.cpp finds user-defined tokens in any text
            assert theirs == [tokenizer.specials["<think>"]]
        else:
            assert theirs == tokenizer.encode(text), text
    chat = "<｜User｜>Hi<｜Assistant｜><think>"
    assert llama.tokenize(chat.encode(), add_bos=False, special=True) == tokenizer.encode(
        chat, allow_special=True
    )
    assert (llama.token_bos(), llama.token_eos()) == (tokenizer.bos_id, tokenizer.eos_id)
