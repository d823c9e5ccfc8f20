"""Adapters of requests: each gives what the model with it merged gives alone, whatever is beside it."""

import gc
import mmap
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.device import host_memory
from shoestring.engine.llm import LLM
from shoestring.engine.request import Request, RequestOutput, SamplingParams
from shoestring.errors import CheckpointError, ConfigError
from shoestring.inputs import LoRARequest
from shoestring.model.config import GQAConfig, ModelConfig, RopeConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.hf.merge import merge_adapter
from shoestring.model.hf.peft import save_adapter
from shoestring.model.lora import LoraConfig, add_adapters
from shoestring.model.packed.quantize import quantize_checkpoint
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

V3 = replace(PRESETS["tiny"], initializer_range=0.2)
QWEN = replace(
    V3,
    model_type="qwen2",
    moe=None,
    num_nextn_predict_layers=0,
    attention=GQAConfig(num_key_value_heads=1, head_dim=32, qkv_bias=True),
    rope=RopeConfig(),
    tie_word_embeddings=True,
)
TARGETS = {"all": ("attention", "mlp", "experts"), "attention": ("attention",), "mlp": ("mlp", "experts")}
ALSO = LoraConfig(rank=4, alpha=3.0, targets=("o_proj", "up_proj"), use_dora=True, use_rslora=True)
PROMPTS = [[5, 9, 3], list(range(40)), [7] * 20, [100, 4], list(range(60, 90)), [8, 8]]


def new_model(config: ModelConfig) -> Transformer:
    return initialize(Transformer(config), torch.Generator().manual_seed(0))


def save_base_and_adapters(config: ModelConfig, folder: Path) -> None:
    """The base, an adapter for each of TARGETS and ALSO, and the base with each of them merged."""
    save_model(new_model(config), folder / "base")
    forms = {name: LoraConfig(rank=3, alpha=5.0, targets=targets) for name, targets in TARGETS.items()}
    for seed, (name, form) in enumerate({**forms, "also": ALSO}.items()):
        model = new_model(config)
        add_adapters(model, form, torch.Generator().manual_seed(seed))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data.normal_(0.0, 0.3, generator=torch.Generator().manual_seed(seed))
        save_adapter(model, folder / name, base=str(folder / "base"))
        merge_adapter(folder / name, folder / f"merged-{name}")


@pytest.fixture(scope="module", params=[V3, QWEN], ids=["v3", "qwen2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adapters")
    save_base_and_adapters(request.param, path)
    return path


def adapter(folder: Path, name: str) -> LoRARequest:
    return LoRARequest(name, 1 + list(TARGETS).index(name), str(folder / name))


def llm(folder: Path, **options: object) -> LLM:
    return LLM(folder, device="cpu", max_num_seqs=6, max_num_batched_tokens=48, max_model_len=128, **options)


PARAMS = SamplingParams(temperature=0.8, max_tokens=12, seed=3, ignore_eos=True, logprobs=2)


def results(outputs: list[RequestOutput]) -> list[tuple]:
    """Tokens and their logprobs, to the last bit."""
    return [(output.outputs[0].token_ids, output.outputs[0].logprobs) for output in outputs]


@pytest.mark.parametrize("quantization", [None, "int8", "int4"])
def test_mixed_in_one_call_each_adapter_gives_what_its_merged_model_gives(folder, quantization):
    names = [None, *TARGETS, "all", None]
    mixed = llm(folder / "base", quantization=quantization)
    requests = [None if name is None else adapter(folder, name) for name in names]
    outputs = results(mixed.generate(PROMPTS, PARAMS, use_tqdm=False, lora_request=requests))
    for name, prompt, output in zip(names, PROMPTS, outputs, strict=True):
        alone = llm(folder / ("base" if name is None else f"merged-{name}"), quantization=quantization)
        assert output == results(alone.generate(prompt, PARAMS, use_tqdm=False))[0], name
    assert len({tuple(ids) for ids, _ in outputs}) == len(outputs)
    assert mixed.counters.pages_used == 0


def test_an_adapter_is_loaded_once_and_shares_what_it_leaves_alone(folder):
    model = llm(folder / "base")
    for _ in range(2):
        model.generate(PROMPTS[:2], PARAMS, use_tqdm=False, lora_request=adapter(folder, "attention"))
        (loaded,) = model.engine.adapters.values()
    own, base = (each.state_dict() for each in (loaded, model.engine.model))
    assert own.keys() == base.keys()
    mtp = f"model.layers.{loaded.config.num_hidden_layers}."
    assert {name for name in own if own[name].data_ptr() != base[name].data_ptr()} == {
        name
        for name in own
        if ".self_attn." in name and not name.startswith(mtp) and not name.endswith("norm.weight")
    }


def test_the_memory_of_what_an_adapter_shares_is_free_again(folder, monkeypatch):
    loaded = []

    def remember(num_bytes: int, **options: bool) -> mmap.mmap:
        memory = host_memory(num_bytes, **options)
        loaded.append(weakref.ref(memory))
        return memory

    monkeypatch.setattr("shoestring.model.hf.weights.host_memory", remember)
    model = llm(folder / "base")
    model.generate(PROMPTS[:1], PARAMS, use_tqdm=False, lora_request=adapter(folder, "attention"))
    gc.collect()
    assert [memory() is not None for memory in loaded] == [True, False]  # the base's, the adapter's


def test_cached_pages_are_of_one_adapter(folder):
    model, prompt = llm(folder / "base"), list(range(70))
    requests = [None, adapter(folder, "all"), adapter(folder, "mlp")]
    for is_cached in (False, True):
        for request in requests:
            (output,) = model.generate([prompt], PARAMS, use_tqdm=False, lora_request=request)
            assert (output.num_cached_tokens > 0) == is_cached
    salts = {
        Request(request_id="a", prompt_token_ids=(1,), adapter=name, cache_salt=salt).prefix_salt
        for name, salt in (("", ""), ("1", ""), ("", "1"), ("1", "1"), ("11", ""), ("", "1:1"))
    }
    assert len(salts) == 6


def test_chat_free_calls_and_beams_take_an_adapter(folder):
    from shoestring.sampling_params import BeamSearchParams

    model, merged = llm(folder / "base"), llm(folder / "merged-all")
    params = BeamSearchParams(beam_width=2, max_tokens=4)
    (ours,) = model.beam_search([PROMPTS[0]], params, lora_request=adapter(folder, "all"))
    (theirs,) = merged.beam_search([PROMPTS[0]], params)
    assert [s.tokens for s in ours.sequences] == [s.tokens for s in theirs.sequences]


def test_what_cannot_be_an_adapter_is_refused_in_a_sentence(folder, tmp_path):
    model = llm(folder / "base")
    good = adapter(folder, "all")
    model.generate([PROMPTS[0]], PARAMS, use_tqdm=False, lora_request=[good])
    cases = [
        ([good, None], ConfigError, "2 lora_requests for 1 prompts"),
        ("adapter", ConfigError, "lora_request is a str"),
        (LoRARequest("other", good.lora_int_id, str(folder / "mlp")), ConfigError, "give .* another number"),
        (LoRARequest("none", 9, str(tmp_path)), CheckpointError, "adapter_config.json"),
    ]
    for request, kind, words in cases:
        with pytest.raises(kind, match=words):
            model.generate([PROMPTS[0]], PARAMS, use_tqdm=False, lora_request=request)
    with pytest.raises(CheckpointError):  # not remembered as loaded
        model.generate([PROMPTS[0]], PARAMS, use_tqdm=False, lora_request=cases[-1][0])
    with pytest.raises(ConfigError, match=r"LLM\.of has no checkpoint"):
        LLM.of(model.engine).generate([PROMPTS[0]], PARAMS, use_tqdm=False, lora_request=good)
    with pytest.raises(ConfigError, match="no adapter 'x'"):
        model.engine.add_request(Request(request_id="q", prompt_token_ids=(1,), adapter="x"))
    for number, path in ((0, "a"), (True, "a"), ("1", "a"), (1, ""), (1, None)):
        with pytest.raises(ConfigError, match="lora_"):
            LoRARequest("x", number, path)


@pytest.mark.parametrize("form", ["int8", "int4"])
def test_adapters_stay_beside_packed_weights_and_give_the_same_alone_and_together(folder, tmp_path, form):
    quantize_checkpoint(Checkpoint.open(folder / "base"), tmp_path / "packed", form)
    names = [None, *TARGETS, "all", None]
    requests = [None if name is None else adapter(folder, name) for name in names]
    together = llm(tmp_path / "packed").generate(PROMPTS, PARAMS, use_tqdm=False, lora_request=requests)
    texts = set()
    for name, prompt, output in zip(names, PROMPTS, results(together), strict=True):
        one = "" if name is None else f"+{folder / name}"
        alone = llm(f"{tmp_path / 'packed'}{one}").generate(prompt, PARAMS, use_tqdm=False)
        assert output == results(alone)[0], name
        texts.add(tuple(output[0]))
    assert len(texts) == len(names)


def test_eight_requests_over_four_adapters_get_the_tokens_of_their_merged_models(folder):
    """Greedy and in float32, each as alone with its merged model, to the last bit of every logprob."""
    names = [*TARGETS, "also"] * 2
    prompts = [[5 + place, 9, 3, *range(place)] for place in range(8)]
    params = SamplingParams(temperature=0.0, max_tokens=16, ignore_eos=True, logprobs=2)
    base = LLM(folder / "base", device="cpu", max_num_seqs=8, max_model_len=128)
    requests = [LoRARequest(name, 1 + [*TARGETS, "also"].index(name), str(folder / name)) for name in names]
    outputs = results(base.generate(prompts, params, use_tqdm=False, lora_request=requests))
    assert base.counters.steps < 8 * 16 / 4  # they ran together
    for name in dict.fromkeys(names):
        merged = LLM(folder / f"merged-{name}", device="cpu", max_num_seqs=1, max_model_len=128)
        for other, prompt, output in zip(names, prompts, outputs, strict=True):
            if other == name:
                assert output == results(merged.generate(prompt, params, use_tqdm=False))[0]
    assert len({tuple(ids) for ids, _ in outputs}) == 8


def test_an_adapter_without_memory_for_it_is_refused(folder, monkeypatch):
    model = llm(folder / "base")
    monkeypatch.setattr("shoestring.engine.offline.adapters.available_bytes", lambda device: 1000)
    with pytest.raises(ConfigError, match="GB are free; free some"):
        model.generate([PROMPTS[0]], PARAMS, lora_request=adapter(folder, "all"))
