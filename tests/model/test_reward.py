"""Reward models: one number for a conversation, read at its last token."""

import torch

from shoestring.model.presets import TINY
from shoestring.model.reward import RewardModel, with_reward_head
from shoestring.model.transformer import Transformer, initialize


def base(**changes) -> Transformer:
    from dataclasses import replace

    shape = replace(TINY, vocab_size=64, initializer_range=0.2, **changes)
    return initialize(Transformer(shape), torch.Generator().manual_seed(1))


def test_the_reward_is_the_head_on_the_last_token():
    model = with_reward_head(base(), torch.Generator().manual_seed(2))
    ids = torch.randint(0, 64, (3, 9), generator=torch.Generator().manual_seed(3))
    lengths = torch.tensor([9, 4, 1])
    rewards = model.rewards(ids, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = model.features(ids[row : row + 1, :length]).hidden_BTD[0, -1] @ model.score.weight[0]
        torch.testing.assert_close(rewards[row], alone, rtol=0, atol=1e-5)
    changed = ids.clone()
    changed[1, 4:] = 0  # padding changes nothing
    torch.testing.assert_close(model.rewards(changed, lengths), rewards, rtol=0, atol=1e-6)


def test_a_base_gives_its_layers_without_head_and_mtp():
    for tied in (False, True):
        language = base(tie_word_embeddings=tied)
        model = with_reward_head(language, torch.Generator().manual_seed(2))
        names = {name for name, _ in model.named_parameters()}
        assert names == {name for name, _ in RewardModel(model.config).named_parameters()}
        assert "score.weight" in names
        assert not any(name.startswith(("lm_head", "model.layers.3")) for name in names)
        assert model.model.embed_tokens.weight is language.model.embed_tokens.weight
