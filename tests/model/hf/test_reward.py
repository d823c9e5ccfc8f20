"""Reward models in Hugging Face layout: written, read, opened by transformers, refused as others."""

import json
from dataclasses import replace

import pytest
import torch

from shoestring.errors import CheckpointError
from shoestring.model.config import GQAConfig, ModelConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.hf.reward import (
    RewardScorer,
    is_reward_model,
    load_head,
    load_reward_model,
    padded_ids,
    reward_ids,
    save_head,
)
from shoestring.model.presets import TINY
from shoestring.model.reward import RewardModel
from shoestring.model.transformer import Transformer, initialize

GQA = ModelConfig(
    model_type="llama",
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    attention=GQAConfig(num_key_value_heads=2, head_dim=8),
    max_position_embeddings=64,
    pad_token_id=0,
    initializer_range=0.3,
)
SHAPES = {
    "llama": GQA,
    "llama tied": replace(GQA, tie_word_embeddings=True),
    "qwen2": replace(GQA, model_type="qwen2", attention=replace(GQA.attention, qkv_bias=True)),
    "qwen3": replace(GQA, model_type="qwen3", attention=replace(GQA.attention, qk_norm=True)),
    "deepseek_v3": replace(TINY, vocab_size=97, pad_token_id=0, initializer_range=0.3),
}


def reward_model(shape: ModelConfig) -> RewardModel:
    return initialize(RewardModel(shape), torch.Generator().manual_seed(1)).eval()


@pytest.mark.parametrize("name", SHAPES)
def test_transformers_opens_it_and_gives_the_same_rewards(name, tmp_path):
    """Padded rows too: the reward is read at the last token that is not padding."""
    transformers = pytest.importorskip("transformers")
    model = reward_model(SHAPES[name])
    save_model(model, tmp_path / "rewards")
    config = json.loads((tmp_path / "rewards" / "config.json").read_text())
    assert config["architectures"][0].endswith("ForSequenceClassification")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "rewards").eval()
    rows = [[5, 9, 3, 7, 7, 1, 90], [4, 8], [2, 3, 4, 5, 6]]
    ids, lengths = padded_ids(rows, torch.device("cpu"))
    mask = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask.long()).logits[:, 0]
        torch.testing.assert_close(model.rewards(ids, lengths), expected, rtol=0, atol=1e-5)


def test_it_is_read_as_it_was_written(tmp_path):
    model = reward_model(GQA)
    save_model(model, tmp_path)
    checkpoint = Checkpoint.open(tmp_path)
    assert is_reward_model(checkpoint)
    again = load_reward_model(checkpoint)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    with pytest.raises(CheckpointError, match="is a reward model: it scores answers and writes none"):
        load_model(checkpoint)


def test_a_language_model_and_a_classifier_are_refused(tmp_path):
    save_model(initialize(Transformer(GQA), torch.Generator().manual_seed(1)), tmp_path / "language")
    with pytest.raises(CheckpointError, match="is no reward model"):
        load_reward_model(Checkpoint.open(tmp_path / "language"))
    classifier = reward_model(GQA)
    classifier.score.weight = torch.nn.Parameter(torch.zeros(3, 32))
    save_model(classifier, tmp_path / "classes")
    with pytest.raises(CheckpointError, match="has 3 outputs"):
        load_reward_model(Checkpoint.open(tmp_path / "classes"))


def test_a_head_is_kept_beside_an_adapter(tmp_path):
    one, other = reward_model(GQA), reward_model(GQA)
    torch.nn.init.normal_(one.score.weight)
    save_head(one, tmp_path)
    load_head(other, tmp_path)
    assert torch.equal(one.score.weight, other.score.weight)
    (tmp_path / "head.safetensors").write_bytes(b"no")
    with pytest.raises(CheckpointError, match=r"head\.safetensors"):
        load_head(other, tmp_path)


def test_padding_at_the_end_is_not_read():
    assert reward_ids([3, 0, 4, 0, 0], 0) == [3, 0, 4]
    assert reward_ids([3, 0, 4], None) == [3, 0, 4]
    assert reward_ids([0, 0], 0) == [0]


@pytest.fixture
def scorer(model_folder, runtime, tmp_path):
    base = Checkpoint.open(model_folder(4))
    model = reward_model(base.config)
    save_model(model, tmp_path / "rewards", tokenizer_files=base.folder)
    return RewardScorer(Checkpoint.open(tmp_path / "rewards"), runtime, micro_tokens=40)


def talk(answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": "1+2="}, {"role": "assistant", "content": answer}]


def test_conversations_get_the_reward_they_get_alone(scorer):
    talks = [talk("3 so" * count) for count in (5, 1, 9, 2)]
    together = scorer.score(talks)
    assert together == pytest.approx([scorer.score([one])[0] for one in talks], abs=1e-5)
    assert len(set(together)) == 4
    assert scorer.score([]) == []


def test_of_a_long_conversation_the_end_counts(scorer):
    """Without it, all that are cut would have the reward of the same beginning."""
    long = "1+2=3 " * 400
    assert scorer.score([talk(long + "4")]) != scorer.score([talk(long + "5")])
