"""A copy of a model in the CPU kernels' order of weights: it samples while the original is trained."""

from dataclasses import replace

import torch

from shoestring.kernels.packed import available
from shoestring.model.hf.names import sinks, stored_views
from shoestring.model.lora import adapters_of, stored_updates
from shoestring.model.packed.block import pack_structure
from shoestring.model.packed.frozen import is_frozen
from shoestring.model.transformer import Transformer


class PackedCopy:
    """`model` computes the same as `original` did at the last refresh(), in float32 up to rounding.

    Its matrices lie in panels (kernels/packed.py), so that a whole layer is one call. It takes the memory of
    the weights again, and milliseconds per million of them for a refresh. It has no MTP modules.
    """

    def __init__(self, original: Transformer) -> None:
        config = replace(original.config, num_nextn_predict_layers=0)
        with torch.device("meta"):
            empty = pack_structure(Transformer(config), 32)
        self.model = empty.to_empty(device="cpu").requires_grad_(False).eval()
        self._original, self._packed = original, sinks(self.model)
        self.refresh()

    @staticmethod
    def suits(model: Transformer) -> bool:
        """Return whether there are kernels for a copy: float32, on a CPU with the instructions they need.

        A model on packed weights has none: a copy would be many times its size.
        """
        is_float = model.compute_dtype == torch.float32 and not is_frozen(model)
        return model.device.type == "cpu" and is_float and available()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copy the original's present weights, with its adapters merged."""
        updates = stored_updates(adapters_of(self._original))
        weights = stored_views(self._original)
        for name, weight in [*weights.items()]:
            if name in updates:
                weights[name] = updates[name].apply(weight)
        for name, sink in self._packed.items():
            sink.write(0, weights.get(name, self._original.head_weight_WD).float())
        own = stored_views(self.model)
        for name in own.keys() & weights.keys():
            own[name].copy_(weights[name])
