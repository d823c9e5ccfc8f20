"""LLM: vLLM's offline calls, results in order, many callers at once, and Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

import shoestring
from shoestring.engine import llm as llm_module
from shoestring.engine.llm import LLM
from shoestring.engine.request import (
    CompletionOutput,
    RequestOutput,
    SamplingParams,
    StructuredOutputsParams,
)
from shoestring.engine.settings import EngineSettings
from shoestring.errors import CheckpointError, ConfigError, TokenizerError
from shoestring.model.hf.folder import save_model
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def mla() -> Transformer:
    """As in conftest, with room for the bytes and special tokens of a tokenizer."""
    config = replace(TINY, initializer_range=0.2, vocab_size=300)
    return initialize(Transformer(config), torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mla) -> Path:
    """A chat model with random weights."""
    root = tmp_path_factory.mktemp("llm")
    words = root / "tokenizer"
    words.mkdir()
    texts = ["def f(x):\n    return x + 1\n"] * 3
    Tokenizer.train(texts, mla.config.vocab_size).save(words)
    DeepSeekTemplate().save(words)
    save_model(mla, root / "model", tokenizer_files=words, generation={"temperature": 0.5, "top_p": 0.9})
    return root / "model"


@pytest.fixture(scope="module")
def llm(folder) -> LLM:
    return LLM(folder, max_num_seqs=4, max_model_len=64, device="cpu")


def texts(outputs):
    return [output.outputs[0].text for output in outputs]


def test_the_package_gives_its_names_and_imports_nothing_for_them():
    assert shoestring.LLM is LLM
    assert shoestring.SamplingParams is SamplingParams
    with pytest.raises(AttributeError, match="Llm"):
        _ = shoestring.Llm
    code = "import sys, shoestring; print(shoestring.__version__, 'torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split()[1] == "False"


def test_every_form_of_a_prompt_in_order(llm, naive, mla):
    words = llm.get_tokenizer()
    ids = [words.bos_id, *words.encode("def f", add_special_tokens=False)]
    prompts = ["def f", ids, {"prompt": "def f"}, {"prompt_token_ids": ids, "cache_salt": "me"}, [7, 8, 9]]
    outputs = llm.generate(prompts, GREEDY, use_tqdm=False)
    expected = naive(mla, ids, 6)
    assert [list(output.outputs[0].token_ids) for output in outputs[:4]] == [expected] * 4
    assert list(outputs[4].outputs[0].token_ids) == naive(mla, [7, 8, 9], 6)
    assert outputs[0].prompt == "def f"
    assert outputs[0].outputs[0].text == words.decode(expected, skip_special=False)
    assert all(output.finished for output in outputs)
    assert len(llm.generate("def f", GREEDY)) == len(llm.generate(ids, GREEDY)) == 1
    assert llm.generate([], GREEDY) == []


def test_one_params_each_and_n(llm):
    outputs = llm.generate([[5], [6]], [SamplingParams(max_tokens=2), SamplingParams(max_tokens=3, n=3)])
    assert [len(output.outputs) for output in outputs] == [1, 3]
    with pytest.raises(ConfigError, match="3 sampling_params for 2 prompts"):
        llm.generate([[5], [6]], [GREEDY] * 3)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (list(range(70)), "70 tokens"),
        ([10_000], "10000"),
        ({"prompt": "x", "image": 1}, "image"),
        ({"prompt_token_ids": "text"}, "prompt_token_ids"),
        (3.5, "prompt 1"),
        ([], "0 tokens|prompt 1"),
    ],
)
def test_a_bad_prompt_among_many_stops_all_before_anything_runs(llm, prompt, words):
    before = llm.counters
    with pytest.raises(ConfigError, match=words):
        llm.generate([[5, 6], prompt], GREEDY)
    assert llm.counters.computed_tokens == before.computed_tokens
    assert llm.counters.pages_used == 0
    assert llm.counters.waiting == 0


def test_an_unseeded_call_repeats_with_the_llm_and_differs_within_it(llm, folder):
    params = SamplingParams(max_tokens=12, temperature=1.5)
    first, again = (LLM(folder, max_num_seqs=4, seed=5, device="cpu") for _ in range(2))
    assert texts(first.generate(["x"] * 3, params)) == texts(again.generate(["x"] * 3, params))
    assert len(set(texts(first.generate(["x"] * 4, params)))) > 1
    assert llm.get_default_sampling_params() == SamplingParams(temperature=0.5, top_p=0.9)


def test_chat_uses_the_template(llm):
    talk = [{"role": "user", "content": "hi"}]
    one, many = llm.chat(talk, GREEDY), llm.chat([talk, talk], GREEDY)
    assert texts(many) == texts(one) * 2
    assert one[0].prompt == "<｜begin▁of▁sentence｜><｜User｜>hi<｜Assistant｜>"
    thinking = llm.chat(talk, GREEDY, chat_template_kwargs={"thinking": True})
    assert thinking[0].prompt.endswith("<think>")
    begun = [*talk, {"role": "assistant", "content": "sentence"}]
    going_on = llm.chat(begun, GREEDY, add_generation_prompt=False, continue_final_message=True)
    assert going_on[0].prompt.endswith("<｜Assistant｜>sentence")
    source = "{{ bos_token }}{{ effort }}: {{ messages[0].content }}"
    other = llm.chat(talk, GREEDY, chat_template=source, chat_template_kwargs={"effort": "low"})
    assert other[0].prompt == "<｜begin▁of▁sentence｜>low: hi"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"continue_final_message": True}, ConfigError),
        ({"continue_final_message": True, "add_generation_prompt": False}, ConfigError),
        ({"chat_template_kwargs": {"messages": []}}, ConfigError),
        ({"chat_template_kwargs": {"thinking": "yes"}}, ConfigError),
    ],
)
def test_chat_refuses_what_it_cannot_do(llm, arguments, error):
    with pytest.raises(error):
        llm.chat([{"role": "user", "content": "hi"}], GREEDY, **arguments)
    with pytest.raises(TokenizerError):
        llm.chat([], GREEDY)


def test_a_stream_is_the_call_in_pieces_and_others_run_meanwhile(llm):
    whole = llm.generate("def f", GREEDY)[0].outputs[0]
    stream = llm.stream("def f", GREEDY)
    parts = [next(stream)]
    assert llm.generate("def f", GREEDY)[0].outputs[0] == whole
    parts += stream
    assert "".join(part.outputs[0].text for part in parts) == whole.text
    assert [i for part in parts for i in part.outputs[0].token_ids] == whole.token_ids
    assert [part.finished for part in parts] == [False] * (len(parts) - 1) + [True]


def test_a_closed_stream_gives_its_pages_back(llm):
    stream = llm.stream([{"role": "user", "content": "hi"}], SamplingParams(max_tokens=None, ignore_eos=True))
    next(stream)
    assert llm.counters.pages_used > 0
    stream.close()
    assert llm.counters.pages_used == 0
    with pytest.raises(ConfigError, match="one prompt"):
        llm.stream(["a", "b"], GREEDY)
    with pytest.raises(ConfigError, match="tools"):
        llm.stream("a", GREEDY, tools=[{}])


def test_ctrl_c_waits_for_the_step_gives_up_the_requests_and_is_raised(llm, monkeypatch):
    step, ended = llm.engine.step, []

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        outputs = step()
        ended.append(len(outputs))
        return outputs

    with monkeypatch.context() as patched:
        patched.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
        patched.setattr(llm.engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(["a", "b"], SamplingParams(max_tokens=None, ignore_eos=True))
    assert len(ended) == 1
    assert llm.counters.pages_used == llm.counters.running == llm.counters.waiting == 0
    assert llm.generate("def f", GREEDY)


def test_quantized_and_from_parts(folder, mla, naive):
    from shoestring.engine.engine import Engine, EngineSettings

    packed = LLM(folder, quantization="int8", max_num_seqs=1, device="cpu")
    assert len(packed.generate("def", GREEDY)[0].outputs[0].token_ids) == 6
    bare = LLM.of(Engine(mla, None, EngineSettings(max_num_seqs=1)))
    assert list(bare.generate([3, 4], GREEDY)[0].outputs[0].token_ids) == naive(mla, [3, 4], 6)
    with pytest.raises(ConfigError, match="no tokenizer"):
        bare.generate("text", GREEDY)
    with pytest.raises(ConfigError, match="no tokenizer"):
        bare.get_tokenizer()
    assert not bare.has_template


def test_every_engine_setting_is_an_argument(folder):
    settings = {
        "max_num_batched_tokens": 96,
        "enable_prefix_caching": False,
        "kv_cache_memory_bytes": 1_000_000,
        "speculation": "off",
    }
    llm = LLM(folder, max_num_seqs=3, max_model_len=40, device="cpu", **settings)
    assert (llm.engine.settings.max_num_seqs, llm.engine.max_model_len) == (3, 40)
    assert {name: getattr(llm.engine.settings, name) for name in settings} == settings
    many = LLM(folder, max_num_seqs=600, kv_cache_memory_bytes=1_000_000, device="cpu")
    assert many.engine.settings.max_num_batched_tokens == 600
    with pytest.raises(ConfigError, match=r"LLM: no 'gpu_memory'.*kv_cache_memory_bytes"):
        LLM(folder, gpu_memory=0.9)
    with pytest.raises(ConfigError, match="max_num_batched_tokens = 2 must be at least max_num_seqs"):
        LLM(folder, max_num_batched_tokens=2, device="cpu")


VLLM = {
    SamplingParams: "n presence_penalty frequency_penalty repetition_penalty temperature top_p top_k min_p "
    "seed stop stop_token_ids ignore_eos max_tokens min_tokens logprobs detokenize skip_special_tokens "
    "include_stop_str_in_output output_kind structured_outputs logit_bias prompt_logprobs bad_words "
    "allowed_token_ids",
    StructuredOutputsParams: "json regex choice grammar json_object",
    CompletionOutput: "index text token_ids cumulative_logprob logprobs routed_experts finish_reason "
    "stop_reason",
    RequestOutput: "request_id prompt prompt_token_ids outputs finished metrics num_cached_tokens "
    "prompt_logprobs",
    EngineSettings: "max_num_seqs max_num_batched_tokens kv_cache_memory_bytes max_model_len "
    "enable_prefix_caching enable_return_routed_experts",
}
"""vLLM's names of what this project has."""


@pytest.mark.parametrize("kind", VLLM, ids=lambda kind: kind.__name__)
def test_names_are_vllms_and_others_are_in_the_table_of_differences(kind):
    names = {field.name for field in fields(kind)}
    shared = set(VLLM[kind].split())
    assert shared <= names
    assert all(re.search(rf"\b{name}\b", llm_module.__doc__) for name in names - shared)


def test_what_is_not_there_is_said_at_once(tmp_path):
    with pytest.raises(CheckpointError, match="no-such"):
        LLM(tmp_path / "no-such")
    with pytest.raises(ConfigError, match="preset"):
        LLM("deepseek-v3")
