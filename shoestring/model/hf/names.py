"""Hugging Face's tensor names for a model: what a checkpoint holds, repeats, or may leave out."""

import re
from typing import Protocol

import torch
from torch import nn

from shoestring.model.config import ModelConfig

_EXPERTS = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)")
_ROPE_TABLE = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


class Sink(Protocol):
    """Where a stored matrix goes when the model keeps it in another form (packed.py)."""

    shape: tuple[int, int]
    rows_at_once: int
    """Rows are written in multiples of this, but for the last."""

    def write(self, first: int, rows: torch.Tensor) -> None:
        """Take rows (n, K), float32, from row `first` on."""
        ...


def sinks(model: nn.Module) -> dict[str, Sink]:
    """Every matrix that a packed model makes of a plain checkpoint, by its name on disk."""
    found: dict[str, Sink] = {}
    for prefix, module in model.named_modules():
        if hasattr(module, "sinks"):
            found |= {f"{prefix}.{name}": sink for name, sink in module.sinks().items()}
    return found


def stored_views(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor a checkpoint holds, by its name on disk, as views: writing to one writes to the model.

    Only routed experts differ from the model's own names: stacked in memory, one by one on disk.
    """
    views: dict[str, torch.Tensor] = {}
    for name, tensor in model.state_dict().items():
        match = _EXPERTS.fullmatch(name)
        if match is None:
            views[name] = tensor
            continue
        prefix, kind = match.groups()
        for expert, matrix in enumerate(tensor):  # (2F, D): gate rows, then up rows; or (D, F)
            if kind == "down_proj":
                views[f"{prefix}.{expert}.down_proj.weight"] = matrix
                continue
            gate, up = matrix.chunk(2)
            views[f"{prefix}.{expert}.gate_proj.weight"] = gate
            views[f"{prefix}.{expert}.up_proj.weight"] = up
    return views


def mtp_copies(config: ModelConfig) -> dict[str, str]:
    """Name on disk -> main name, for the embedding and head that DeepSeek repeats in each MTP module."""
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    copies = {}
    for module in range(config.num_nextn_predict_layers):
        prefix = f"model.layers.{config.num_hidden_layers + module}"
        copies[f"{prefix}.embed_tokens.weight"] = "model.embed_tokens.weight"
        copies[f"{prefix}.shared_head.head.weight"] = head
    return copies


def is_redundant(name: str, config: ModelConfig) -> bool:
    """Whether a checkpoint may hold `name` although the model shares or computes that tensor."""
    tied_head = config.tie_word_embeddings and name == "lm_head.weight"
    return tied_head or name in mtp_copies(config) or _ROPE_TABLE.fullmatch(name) is not None
