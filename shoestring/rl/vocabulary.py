"""The vocabulary of a policy: the ids that tokens have, without the rows that pad an embedding."""

import torch
from torch import Tensor

from shoestring.tokenizer.bpe import Tokenizer


class Vocabulary:
    """The ids over which probabilities are normalized: those that some token has.

    The engine never samples another id, and its log-probabilities leave the others out. The trainer's must do
    so too: else each ratio of the two would be off by the probability of the padding.
    """

    def __init__(self, tokenizer: Tokenizer, embedding_rows: int, device: torch.device) -> None:
        unused = tokenizer.unused_ids(embedding_rows)
        self._size = embedding_rows - len(unused)
        self._ids: Tensor | None = None
        """The ids with tokens; None where they are the first ones."""
        if unused and unused[0] < self._size:
            is_used = torch.ones(embedding_rows, dtype=torch.bool)
            is_used[unused] = False
            self._ids = is_used.nonzero()[:, 0].to(device)
            self._places = (is_used.cumsum(0) - 1).to(device)

    def rows(self, head_WD: Tensor) -> Tensor:
        """The rows of the output matrix that belong to tokens, in their order."""
        return head_WD[: self._size] if self._ids is None else head_WD[self._ids]

    def places(self, ids_N: Tensor) -> Tensor:
        """The place of each token among these rows."""
        return ids_N if self._ids is None else self._places[ids_N]
