"""The engine that samples from a model while it is being trained."""

from shoestring.engine.engine import Engine
from shoestring.engine.settings import EngineSettings
from shoestring.model.packed.copy import PackedCopy
from shoestring.model.transformer import Transformer
from shoestring.tokenizer.bpe import Tokenizer


class PolicyEngine(Engine):
    """An engine on the trainer's own tensors, or on a packed copy where the CPU's kernels support it.

    Call weights_changed() after every update.
    """

    def __init__(self, policy: Transformer, tokenizer: Tokenizer, settings: EngineSettings) -> None:
        self._copy = PackedCopy(policy) if PackedCopy.suits(policy) else None
        super().__init__(policy if self._copy is None else self._copy.model, tokenizer, settings)

    def weights_changed(self) -> None:
        if self._copy is not None:
            self._copy.refresh()
        super().weights_changed()
