"""The vocabulary of a policy: padding is never sampled, and the trainer's probabilities leave it out too."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from shoestring.engine.policy_engine import PolicyEngine
from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.settings import EngineSettings
from shoestring.errors import TokenizerError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model
from shoestring.model.transformer import Transformer
from shoestring.rl.grpo import grpo
from shoestring.rl.losses import PolicyLossConfig
from shoestring.rl.micro_batches import answer_logprobs, micro_batches
from shoestring.rl.recipe import GRPOConfig, TaskShare
from shoestring.rl.rollout import Answer
from shoestring.rl.vocabulary import Vocabulary
from shoestring.tasks.task import Example, Problem
from shoestring.tokenizer.bpe import Tokenizer

CONFIG = GRPOConfig(model="", tasks=(TaskShare(name="arithmetic"),), loss=PolicyLossConfig(beta=0.1))


@pytest.fixture(params=["padding", "gaps"])
def folder(request, student_folder, tmp_path):
    """A model whose embedding has rows that no token has: behind all ids, or among them as well."""
    copy = tmp_path / "model"
    shutil.copytree(student_folder, copy)
    if request.param == "gaps":
        file = copy / "tokenizer.json"
        content = json.loads(file.read_text())
        content["added_tokens"][-1]["id"] += 7
        for spelling, token_id in content["model"]["vocab"].items():
            if spelling == content["added_tokens"][-1]["content"]:
                content["model"]["vocab"][spelling] = token_id + 7
        file.write_text(json.dumps(content))
    return copy


def likes_padding(model: Transformer, unused: list[int]) -> None:
    """Make the rows that no token has the likeliest by far: ten times the sum of the others' weights."""
    with torch.no_grad():
        model.head_weight_WD[unused] = 10 * model.head_weight_WD.abs().mean(0) * torch.sign(torch.randn(()))
        model.head_weight_WD[unused[::2]] *= -1


def test_ids_without_a_token_are_never_sampled_and_both_sides_agree(folder):
    torch.manual_seed(0)
    tokenizer, model = Tokenizer.load(folder), load_model(Checkpoint.open(folder))
    width = model.config.vocab_size
    unused = tokenizer.unused_ids(width)
    assert len(unused) > 5
    assert not {*unused} & {*tokenizer.encode("1+2=3")}
    likes_padding(model, unused)
    engine = PolicyEngine(model, tokenizer, EngineSettings(max_num_seqs=8, max_model_len=64))
    params = SamplingParams(
        n=8, max_tokens=24, ignore_eos=True, token_logprobs=True, logprobs=3, prompt_logprobs=2
    )
    prompt = tuple(tokenizer.encode("1+2="))
    engine.add_request(
        Request(request_id="a", prompt_token_ids=prompt, sampling_params=replace(params, seed=3))
    )
    while engine.has_unfinished():
        outputs = engine.step()
    sampled = {token for completion in outputs[0].outputs for token in completion.token_ids}
    assert sampled
    assert not sampled & {*unused}
    listed = {token for c in outputs[0].outputs for entry in c.logprobs or () for token in entry}
    assert not listed & {*unused}
    answers = [
        Answer(
            problem=Problem(task="t", example=Example(key="1", question="", answer=0)),
            prompt_ids=prompt,
            token_ids=tuple(completion.token_ids),
            logprobs=tuple(completion.token_logprobs),
            text="",
            is_truncated=False,
        )
        for completion in outputs[0].outputs
    ]
    vocabulary = Vocabulary(tokenizer, width, model.device)
    for batch in micro_batches(answers, CONFIG, model):
        logp_BT = answer_logprobs(model, batch, 1.0, vocabulary)
        torch.testing.assert_close(logp_BT.detach(), batch.engine_logp_BT, rtol=0, atol=1e-4)
        (grad,) = torch.autograd.grad(logp_BT.sum(), model.head_weight_WD)
        assert not grad[unused].any()


def test_an_engine_without_a_tokenizer_samples_any_id(student_folder):
    from shoestring.engine.engine import Engine

    model = load_model(Checkpoint.open(student_folder))
    engine = Engine(model, None, EngineSettings(max_num_seqs=1, max_model_len=64))
    hidden_ND = torch.randn(2, model.config.hidden_size)
    assert engine.runner.logits(hidden_ND).isfinite().all()


def test_a_tokenizer_larger_than_the_embedding_is_refused_before_anything_is_made(
    oversized, student_folder, runtime, tmp_path
):
    config = GRPOConfig(model=str(oversized(student_folder)), tasks=(TaskShare(name="arithmetic"),), steps=1)
    with pytest.raises(TokenizerError, match="the embedding has only 320 rows"):
        grpo(config, runtime, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out" / "config.toml").exists()
