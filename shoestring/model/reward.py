"""A reward model: a transformer with a head of one number for a conversation in place of the vocabulary's."""

from dataclasses import replace

import torch
from torch import Tensor

from shoestring.model.config import ModelConfig
from shoestring.model.layers import Linear
from shoestring.model.transformer import Transformer


class RewardModel(Transformer):
    """Scores token ids: InstructGPT's reward model (arXiv 2203.02155, section 3.5), without MTP modules.

    Its parameters have the names of Hugging Face's ...ForSequenceClassification: `score.weight` is (1, D).
    """

    def __init__(self, config: ModelConfig, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__(replace(config, num_nextn_predict_layers=0), compute_dtype)
        if not config.tie_word_embeddings:
            del self.lm_head
        self.score = Linear(config.hidden_size, 1, bias=False)

    def rewards(self, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """The reward of each row (B,), float32, read where its last token is; what follows it is padding."""
        hidden_BTD = self.features(ids_BT).hidden_BTD
        last_BD = hidden_BTD[torch.arange(len(ids_BT), device=ids_BT.device), lengths_B - 1]
        return self.score(last_BD)[:, 0].float()


@torch.no_grad()
def with_reward_head(base: Transformer, generator: torch.Generator) -> RewardModel:
    """The layers of a language model, which it shares, with a new head drawn by `initializer_range`."""
    with torch.device("meta"):
        model = RewardModel(base.config, base.compute_dtype)
    base.model.layers = base.model.layers[: model.config.num_hidden_layers]
    model.model = base.model
    like = base.model.norm.weight
    weight = torch.empty(1, base.config.hidden_size, dtype=like.dtype, device=like.device)
    weight.normal_(0.0, base.config.initializer_range, generator=generator)
    model.score.weight = torch.nn.Parameter(weight)
    return model
