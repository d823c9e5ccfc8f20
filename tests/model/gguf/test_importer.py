"""Round trips through GGUF, and damaged or foreign files that must leave nothing behind."""

import random
import resource
import sysconfig
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring.errors import CheckpointError, ConfigError, ShoestringError, StorageError
from shoestring.model.config import GQAConfig, MLAConfig, MoEConfig, RopeConfig
from shoestring.model.gguf import importer as gguf_import
from shoestring.model.gguf.exporter import export_gguf
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.gguf.importer import import_gguf
from shoestring.model.gguf.names import layout
from shoestring.model.gguf.types import TYPES
from shoestring.model.gguf.writer import TensorEntry, write_gguf
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.names import stored_views
from shoestring.model.presets import DEMO, TINY
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.bpe import Tokenizer

gguf = pytest.importorskip("gguf")

PLAIN = replace(TINY, num_nextn_predict_layers=0)
QWEN = replace(
    PLAIN, model_type="qwen2", moe=None, rope=RopeConfig(), tie_word_embeddings=True,
    attention=GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
)  # fmt: skip
LLAMA = replace(
    QWEN, model_type="llama", tie_word_embeddings=False,
    attention=GQAConfig(num_key_value_heads=1, head_dim=64, qkv_bias=True, o_bias=True),
    rope=RopeConfig(rope_theta=5e5, rope_type="llama3", factor=8.0, original_max_position_embeddings=512),
)  # fmt: skip
V2 = MoEConfig(
    n_routed_experts=4, n_shared_experts=2, num_experts_per_tok=2, moe_intermediate_size=32,
    first_k_dense_replace=1, scoring_func="softmax", topk_method="greedy", norm_topk_prob=False,
)  # fmt: skip
QWEN3_EXPERTS = MoEConfig(
    n_routed_experts=4, n_shared_experts=0, num_experts_per_tok=2, moe_intermediate_size=32,
    scoring_func="softmax", topk_method="greedy",
)  # fmt: skip
YARN = RopeConfig(
    rope_type="yarn", interleave=True, factor=40.0, original_max_position_embeddings=64, mscale=0.707,
    mscale_all_dim=0.707,
)  # fmt: skip
FAMILIES = {
    "v3": replace(
        DEMO, num_nextn_predict_layers=0, vocab_size=512, bos_token_id=0, eos_token_id=1, pad_token_id=2
    ),
    "groups": PLAIN,
    "v2-lite": replace(
        PLAIN, model_type="deepseek_v2", moe=V2, rope=YARN,
        attention=MLAConfig(
            q_lora_rank=None, kv_lora_rank=32, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=24
        ),
    ),
    "dense": replace(PLAIN, moe=None),
    "qwen2": QWEN,
    "qwen3": replace(
        QWEN, model_type="qwen3", attention=GQAConfig(num_key_value_heads=1, head_dim=24, qk_norm=True),
        rope=RopeConfig(
            rope_type="yarn", factor=4.0, original_max_position_embeddings=64, attention_factor=1.25
        ),
    ),
    "qwen3_moe": replace(
        QWEN, model_type="qwen3_moe", moe=QWEN3_EXPERTS,
        attention=GQAConfig(num_key_value_heads=1, head_dim=16, qk_norm=True),
    ),
    "llama3": LLAMA,
}  # fmt: skip


def model_of(config) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.normal_(0, 0.2)
    return model.eval()


def equal(a: Transformer, b: Transformer) -> bool:
    ours, theirs = stored_views(a), stored_views(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_comes_back_exactly(family, tmp_path, monkeypatch):
    # Pieces end inside matrices, and between heads.
    monkeypatch.setattr(gguf_import, "CHUNK_ELEMENTS", 9000 if family == "v3" else 700)
    model = model_of(FAMILIES[family])
    save_model(model, tmp_path / "hf")
    export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "m.gguf", "f32")
    config = import_gguf(tmp_path / "m.gguf", tmp_path / "back", dtype=torch.float32)
    assert config == Checkpoint.open(tmp_path / "back").config == model.config
    assert equal(load_model(Checkpoint.open(tmp_path / "back")), model)


@pytest.mark.parametrize("kind", ["bf16", "q8_0", "q4_0"])
def test_quantized_weights_come_back_as_the_library_reads_them(kind, tmp_path):
    config = FAMILIES["v3"]
    export_gguf(model_of(config), tmp_path / "m.gguf", kind)
    import_gguf(tmp_path / "m.gguf", tmp_path / "back", dtype=torch.float32)
    views = stored_views(load_model(Checkpoint.open(tmp_path / "back")))
    theirs = {
        t.name: gguf.quants.dequantize(t.data, t.tensor_type)
        for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors
    }
    for item in layout(config):
        if item.heads is None:
            ours = np.stack([views[name].numpy() for name in item.sources]).reshape(item.shape)
            assert np.array_equal(ours, theirs[item.name]), item.name
    keys, values = (theirs[f"blk.1.attn_{letter}_b.weight"] for letter in "kv")
    joined = np.concatenate((keys.transpose(0, 2, 1), values), axis=1).reshape(-1, 48)
    assert np.array_equal(views["model.layers.1.self_attn.kv_b_proj.weight"].numpy(), joined)


def test_heads_of_halves_compute_the_same_as_neighbors(tmp_path):
    model = model_of(replace(PLAIN, rope=replace(YARN, interleave=False, mscale=1.0, mscale_all_dim=1.0)))
    export_gguf(model, tmp_path / "m.gguf", "f32")
    config = import_gguf(tmp_path / "m.gguf", tmp_path / "back", dtype=torch.float32)
    assert config.rope.interleave
    ids = torch.arange(40)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            load_model(Checkpoint.open(tmp_path / "back"))(ids), model(ids), atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("name", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q5_0"])
def test_types_that_only_the_library_reads_are_imported(name, tmp_path):
    kind = next(kind for kind in TYPES.values() if kind.name == name)
    config = replace(LLAMA, hidden_size=256, intermediate_size=256, vocab_size=8, rope=RopeConfig())
    export_gguf(model_of(config), tmp_path / "f32.gguf", "f32")
    file = GGUFFile.open(tmp_path / "f32.gguf")
    reader = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "f32.gguf").tensors}
    chance = np.random.default_rng(0)
    entries, data = [], []
    for tensor in file.tensors.values():
        chosen = kind if tensor.name == "blk.0.ffn_up.weight" else tensor.type
        entries.append(TensorEntry(name=tensor.name, shape=tensor.shape, type=chosen))
        data.append(reader[tensor.name].view(np.uint8).ravel())
        if chosen is kind:
            scales = chance.integers(0, 60, entries[-1].num_bytes, dtype=np.uint8)  # no NaN among the halves
            data[-1] = scales
    write_gguf(tmp_path / "m.gguf", file.metadata, entries, [[torch.tensor(part)] for part in data])
    import_gguf(tmp_path / "m.gguf", tmp_path / "back", dtype=torch.float32)
    found = stored_views(load_model(Checkpoint.open(tmp_path / "back")))[
        "model.layers.0.mlp.up_proj.weight"
    ].numpy()
    stored = next(d for e, d in zip(entries, data, strict=True) if e.name == "blk.0.ffn_up.weight")
    expected = gguf.quants.dequantize(stored.reshape(256, -1), gguf.GGMLQuantizationType[name])
    assert np.array_equal(found, expected)
    assert np.isfinite(found).all()


def test_files_from_before_kv_b_was_split_are_read(tmp_path):
    model = model_of(PLAIN)
    export_gguf(model, tmp_path / "new.gguf", "f32")
    file, views = GGUFFile.open(tmp_path / "new.gguf"), stored_views(model)
    items = [i for i in layout(PLAIN, split_kv_b=False) if i.heads is None]
    entries = [TensorEntry(name=i.name, shape=i.shape, type=TYPES[0]) for i in items]
    data = [[torch.stack([views[n] for n in i.sources]).view(-1).view(torch.uint8)] for i in items]
    old = {key: value for key, value in file.metadata.items() if not key.endswith("_mla")}
    old |= {"deepseek2.attention.key_length": 16, "deepseek2.attention.value_length": 8}
    write_gguf(tmp_path / "old.gguf", old, entries, data)
    import_gguf(tmp_path / "old.gguf", tmp_path / "back", dtype=torch.float32)
    assert equal(load_model(Checkpoint.open(tmp_path / "back")), model)


def test_tokenizer_and_token_ids_come_along(tmp_path):
    config = FAMILIES["v3"]
    source = Path(sysconfig.get_path("stdlib"), "calendar.py").read_text(encoding="utf-8")
    tokenizer = Tokenizer.train([source], 500)
    tokenizer.save(tmp_path)
    save_model(model_of(config), tmp_path / "hf", tokenizer_files=tmp_path)
    export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "m.gguf")
    assert import_gguf(tmp_path / "m.gguf", tmp_path / "back") == config
    assert Tokenizer.load(tmp_path / "back").encode(source) == tokenizer.encode(source)


def test_large_models_become_shards(tmp_path):
    model = model_of(PLAIN)
    export_gguf(model, tmp_path / "m.gguf", "f32")
    import_gguf(tmp_path / "m.gguf", tmp_path / "back", dtype=torch.float32, max_shard_bytes=50_000)
    assert len(list((tmp_path / "back").glob("model-*-of-*.safetensors"))) > 2
    assert equal(load_model(Checkpoint.open(tmp_path / "back")), model)


def test_the_balance_bias_stays_float32(tmp_path):
    export_gguf(model_of(PLAIN), tmp_path / "m.gguf", "q8_0")
    import_gguf(tmp_path / "m.gguf", tmp_path / "back")
    from safetensors.torch import load_file

    tensors = load_file(tmp_path / "back" / "model.safetensors")
    assert {t.dtype for name, t in tensors.items() if "correction" not in name} == {torch.bfloat16}
    assert {t.dtype for name, t in tensors.items() if "correction" in name} == {torch.float32}


@pytest.fixture
def exported(tmp_path) -> Path:
    export_gguf(model_of(PLAIN), tmp_path / "m.gguf", "q8_0")
    return tmp_path / "m.gguf"


def changed(path: Path, metadata=None, tensors=None) -> Path:
    """The same header with other values or tensors (of zeros)."""
    file = GGUFFile.open(path)
    kept = [TensorEntry(name=t.name, shape=t.shape, type=t.type) for t in file.tensors.values()]
    entries = tensors(kept) if tensors else kept
    chunks = [[torch.zeros(entry.num_bytes, dtype=torch.uint8)] for entry in entries]
    write_gguf(path, file.metadata | (metadata or {}), entries, chunks)
    return path


def test_missing_wrong_and_unknown_tensors_are_named(exported, tmp_path):
    target = partial(import_gguf, exported, tmp_path / "back")
    original = exported.read_bytes()
    changed(exported, tensors=lambda e: [x for x in e if x.name != "blk.2.ffn_up_exps.weight"])
    with pytest.raises(CheckpointError, match=r"lacks the tensor blk\.2\.ffn_up_exps\.weight"):
        target()
    exported.write_bytes(original)
    changed(exported, tensors=lambda e: [*e, TensorEntry(name="blk.0.extra", shape=(1,), type=TYPES[0])])
    with pytest.raises(CheckpointError, match=r"blk\.0\.extra in m\.gguf is not part of a model"):
        target()
    exported.write_bytes(original)
    changed(exported, {"deepseek2.feed_forward_length": 65})
    with pytest.raises(CheckpointError, match=r"has shape \[64, 32\] and its metadata asks for \[65, 32\]"):
        target()
    exported.write_bytes(original)
    changed(exported, {"split.count": 3})
    with pytest.raises(CheckpointError, match="one part of a split model"):
        target()
    assert not (tmp_path / "back").exists()


def test_mtp_modules_in_the_file_are_left_out(exported, tmp_path):
    extra = TensorEntry(name="blk.3.nextn.eh_proj.weight", shape=(4,), type=TYPES[0])
    changed(
        exported, {"deepseek2.block_count": 4, "deepseek2.nextn_predict_layers": 1}, lambda e: [*e, extra]
    )
    assert import_gguf(exported, tmp_path / "back").num_hidden_layers == 3


def test_a_used_folder_and_a_wrong_dtype_are_refused(exported, tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "x").touch()
    with pytest.raises(StorageError, match="exists and is not an empty folder"):
        import_gguf(exported, tmp_path / "used")
    with pytest.raises(ConfigError, match=r"not as torch\.int8"):
        import_gguf(exported, tmp_path / "new", dtype=torch.int8)


def test_ctrl_c_leaves_nothing(exported, tmp_path, monkeypatch):
    def interrupted(raw, kind):
        raise KeyboardInterrupt

    monkeypatch.setattr(gguf_import, "dequantize", interrupted)
    with pytest.raises(KeyboardInterrupt):
        import_gguf(exported, tmp_path / "back")
    assert [path.name for path in tmp_path.iterdir()] == ["m.gguf"]


def outcome(path: Path, folder: Path) -> str:
    try:
        import_gguf(path, folder)
    except ShoestringError as error:
        return "refused" if "\n" not in str(error).strip() and not folder.exists() else f"untidy: {error}"
    return "imported"


def test_random_damage_never_crashes_or_takes_memory(tmp_path):
    """Bytes of the header flipped, files cut: every outcome is a model or one sentence."""
    source = Path(sysconfig.get_path("stdlib"), "calendar.py").read_text(encoding="utf-8")
    Tokenizer.train([source], 300).save(tmp_path)
    small = replace(PLAIN, vocab_size=320, num_hidden_layers=2)
    export_gguf(model_of(small), tmp_path / "m.gguf", "q8_0", tokenizer_files=tmp_path)
    content = (tmp_path / "m.gguf").read_bytes()
    header = min(tensor.start for tensor in GGUFFile.open(tmp_path / "m.gguf").tensors.values())
    keys_end = content.index(b"tokenizer.ggml.tokens")  # most bytes are tokens; most interest is elsewhere
    chance, seen = random.Random(0), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(400):
        broken = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            place = chance.choice([chance.randrange(keys_end), chance.randrange(header)])
            broken[place] = chance.choice([0, 1, 0x7F, 0xFF, broken[place] ^ (1 << chance.randrange(8))])
        if number % 4 == 0:
            del broken[chance.randrange(len(broken)) :]
        (tmp_path / "m.gguf").write_bytes(broken)
        seen.append(outcome(tmp_path / "m.gguf", tmp_path / f"back{number}"))
    assert set(seen) <= {"refused", "imported"}
    assert seen.count("refused") > 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def test_sizes_that_no_tensor_has_cost_no_memory(exported, tmp_path):
    """Each tensor is compared with the file before the next one is thought of."""
    prefix = "deepseek2."
    claims = {"block_count": 4096, "attention.head_count": 2**16, "attention.key_length_mla": 2**16}
    changed(exported, {prefix + key: value for key, value in claims.items()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError, match="its metadata asks for"):
        import_gguf(exported, tmp_path / "back")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB
