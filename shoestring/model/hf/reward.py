"""Reward models in Hugging Face layout (...ForSequenceClassification), and the rewards of conversations."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from shoestring.device import Runtime
from shoestring.errors import CheckpointError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.weights import REWARD_HEAD, load_weights
from shoestring.model.reward import RewardModel
from shoestring.tokenizer.chat.messages import Message
from shoestring.tokenizer.chat.template import encode_many

HEAD_FILE = "head.safetensors"
"""The head of a reward model beside its adapter, which has no place for it."""


def is_reward_model(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint has the head of a reward model."""
    return REWARD_HEAD in checkpoint.tensors


def load_reward_model(
    checkpoint: Checkpoint,
    *,
    dtype: torch.dtype | None = None,
    compute_dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> RewardModel:
    """Read a reward model; parameters and activations as load_model has them.

    Raises ConfigError, CheckpointError (also for a language model), UnsafeFileError.
    """
    if not is_reward_model(checkpoint):
        raise CheckpointError(
            f"{checkpoint.folder} is no reward model: it has no {REWARD_HEAD}; "
            "`shoestring reward-model` trains one"
        )
    if (outputs := checkpoint.tensors[REWARD_HEAD].shape[0]) != 1:
        raise CheckpointError(f"{checkpoint.folder} has {outputs} outputs; a reward model has one")
    with torch.device("meta"):
        model = RewardModel(checkpoint.model_config, compute_dtype)
    load_weights(model, checkpoint, dtype=dtype, device=device)
    return model.eval()


def save_head(model: RewardModel, folder: Path) -> None:
    """Write the head into the folder of an adapter."""
    from safetensors.torch import save_file

    save_file({REWARD_HEAD: model.score.weight.detach().cpu().contiguous()}, folder / HEAD_FILE)


def load_head(model: RewardModel, folder: Path) -> None:
    """Read what `save_head` wrote; raises CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weight = load_file(folder / HEAD_FILE)[REWARD_HEAD]
        with torch.no_grad():
            model.score.weight.copy_(weight)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise CheckpointError(f"cannot read the reward's head in {folder / HEAD_FILE}: {error}") from None


class RewardScorer:
    """A reward model with its tokenizer and template, which gives conversations their rewards."""

    def __init__(self, checkpoint: Checkpoint, runtime: Runtime, *, micro_tokens: int = 8192) -> None:
        """Load it; `micro_tokens` bound the tokens of a forward pass, padding included."""
        self.tokenizer, self.template = checkpoint.tokenizer, checkpoint.template
        self.micro_tokens = micro_tokens
        dtype = runtime.compute_dtype
        self.model = load_reward_model(
            checkpoint, dtype=dtype, compute_dtype=dtype, device=runtime.device
        ).requires_grad_(False)

    @torch.no_grad()
    def score(self, conversations: Iterable[Sequence[Message]]) -> list[float]:
        """The reward of each conversation, which ends with the reply to judge.

        Of one that is longer than the model's context the end is read. Raises TokenizerError for messages
        that the template refuses.
        """
        pieces = [self.template.render(messages, with_loss=False) for messages in conversations]
        longest, pad_id = self.model.config.max_position_embeddings, self.model.config.pad_token_id
        rows = [reward_ids(chat.ids, pad_id)[-longest:] for chat in encode_many(pieces, self.tokenizer)]
        rewards = [0.0] * len(rows)
        order = sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number))
        while order:
            count = max(1, self.micro_tokens // len(rows[order[0]]))
            part, order = order[:count], order[count:]
            values = self.model.rewards(*padded_ids([rows[number] for number in part], self.model.device))
            for number, value in zip(part, values.tolist(), strict=True):
                rewards[number] = value
        return rewards


def reward_ids(ids: list[int], pad_id: int | None) -> list[int]:
    """The ids that a reward model reads: without padding tokens at the end, as transformers has it.

    There the reward is read at the last token that is not the padding's, which may also end a turn.
    """
    end = len(ids)
    while end > 1 and ids[end - 1] == pad_id:
        end -= 1
    return ids[:end]


def padded_ids(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of ids padded on the right (B, T), and their lengths (B,)."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.zeros(len(rows), int(lengths.max()), dtype=torch.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.as_tensor(row)
    return ids.to(device), lengths.to(device)
