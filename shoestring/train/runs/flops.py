"""FLOPs of a step: of learning from its micro-batches, and of the update of the weights."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from shoestring.cost.optimizer import newton_schulz
from shoestring.cost.step import Adapters, Flops, Method, Pass, added, learning
from shoestring.model.config import ModelConfig
from shoestring.model.cost import train_flops_per_token
from shoestring.model.lora import LoraConfig
from shoestring.train.losses import MicroBatch
from shoestring.train.optim import Optimizers


class Recipe(Protocol):
    """A recipe, as far as it says how a model learns."""

    @property
    def gradient_checkpointing(self) -> bool: ...


def method_of(recipe: Recipe, *, logits_again: bool = False) -> Method:
    """The method by which a recipe learns; `logits_again` is that of losses of log-probabilities."""
    lora: LoraConfig = getattr(recipe, "lora", LoraConfig())
    adapters = Adapters(rank=lora.rank, names=lora.names, use_dora=lora.use_dora) if lora.rank else None
    return Method(
        adapters=adapters,
        gradient_checkpointing=recipe.gradient_checkpointing,
        logits_again=logits_again,
    )


def pass_of(batch: MicroBatch, depths: int = 0) -> Pass:
    """The pass of a micro-batch with `depths` MTP modules. Under a mask the head sees what is learned."""
    rows, length = batch.inputs_BT.shape
    if batch.loss_mask_BT is None:
        return Pass.of_rows(rows, length, (rows * length,) * (1 + depths))
    labels_BT = batch.labels_BT
    return Pass.of_rows(
        rows, length, tuple(int((labels_BT[:, depth:] >= 0).sum()) for depth in range(1 + depths))
    )


def learning_flops(
    config: ModelConfig, batches: Iterable[MicroBatch], method: Method, depths: int = 0
) -> Flops:
    """FLOPs of the forward and backward passes of a step's micro-batches."""
    return added(*(learning(config, pass_of(batch, depths), method) for batch in batches))


def update_flops(optimizers: Optimizers) -> Flops:
    """FLOPs of an update, by the gradients that are still there; none of matrix products without Muon."""
    flops = newton_schulz(optimizers.stacks(), optimizers.newton_schulz_steps)
    return {"optimizer": flops} if flops else {}


def saved_flops(values: Mapping[str, Any], config: ModelConfig, tokens: int, length: int) -> Flops:
    """The FLOPs that a checkpoint holds; those of older versions hold none, and get three passes a token."""
    if isinstance(flops := values.get("flops"), Mapping):
        return dict(flops)
    return {"earlier": train_flops_per_token(config, length, mtp=False) * tokens} if tokens else {}
