"""A model's weights once more, arranged for the CPU's kernels: it samples while the other one is trained."""

from dataclasses import replace

import torch

from shoestring.kernels.packed import available
from shoestring.model.hf.names import sinks, stored_views
from shoestring.model.packed.block import pack_structure
from shoestring.model.transformer import Transformer


class PackedCopy:
    """`model` computes what `original` does when refresh() was last called, in float32 to its last digits.

    Matrices lie in panels (kernels/packed.py), so that whole layers are one call. It takes the memory of the
    weights once more, and milliseconds for every million of them after a change. It has no MTP modules.
    """

    def __init__(self, original: Transformer) -> None:
        config = replace(original.config, num_nextn_predict_layers=0)
        with torch.device("meta"):
            empty = pack_structure(Transformer(config), 32)
        self.model = empty.to_empty(device="cpu").requires_grad_(False).eval()
        views, packed = stored_views(original), sinks(self.model)
        head = original.head_weight_WD
        self._packed = [(sink, views.get(name, head)) for name, sink in packed.items()]
        own = stored_views(self.model)
        self._plain = [(own[name], views[name]) for name in own.keys() & views.keys()]
        self.refresh()

    @staticmethod
    def suits(model: Transformer) -> bool:
        """Whether there are kernels for it: float32 on a CPU with the instructions they need."""
        return model.device.type == "cpu" and model.compute_dtype == torch.float32 and available()

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the original's weights as they now are."""
        for sink, weight in self._packed:
            sink.write(0, weight.detach().float())
        for target, source in self._plain:
            target.copy_(source)
