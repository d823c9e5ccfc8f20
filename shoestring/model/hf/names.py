"""Hugging Face's tensor names for a model: those a checkpoint contains, repeats, or may leave out."""

import re
from typing import Protocol

import torch
from torch import nn

from shoestring.model.config import ModelConfig

_EXPERTS = re.compile(r"(.*\.mlp\.experts)\.(gate_up_proj|down_proj)")
_ROPE_TABLE = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


class Sink(Protocol):
    """Receiver of a stored matrix that the model keeps in another form (model/packed/sinks.py)."""

    shape: tuple[int, int]
    rows_at_once: int
    """Every write but the last is a multiple of so many rows."""

    def write(self, first: int, rows: torch.Tensor) -> None:
        """Convert rows (n, K), float32, of which the first is row `first` of the matrix."""
        ...


def sinks(model: nn.Module) -> dict[str, Sink]:
    """The sink of every matrix that a packed model converts, by its name in a plain checkpoint."""
    by_name: dict[str, Sink] = {}
    for prefix, module in model.named_modules():
        if hasattr(module, "sinks"):
            by_name |= {f"{prefix}.{name}": sink for name, sink in module.sinks().items()}
    return by_name


def stored_views(model: nn.Module) -> dict[str, torch.Tensor]:
    """Views of every tensor of a checkpoint by its name on disk: writing to one writes to the model.

    Only routed experts have other names than in the model: they are stacked in memory and separate on disk.
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
    """Name on disk -> name in the main model, of the embedding and head that each MTP module repeats."""
    head = "model.embed_tokens.weight" if config.tie_word_embeddings else "lm_head.weight"
    copies = {}
    for module in range(config.num_nextn_predict_layers):
        prefix = f"model.layers.{config.num_hidden_layers + module}"
        copies[f"{prefix}.embed_tokens.weight"] = "model.embed_tokens.weight"
        copies[f"{prefix}.shared_head.head.weight"] = head
    return copies


def is_redundant(name: str, config: ModelConfig) -> bool:
    """Return whether a checkpoint may contain `name` although the model shares or computes that tensor."""
    tied_head = config.tie_word_embeddings and name == "lm_head.weight"
    return tied_head or name in mtp_copies(config) or _ROPE_TABLE.fullmatch(name) is not None
