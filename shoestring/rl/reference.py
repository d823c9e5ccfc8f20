"""The reference of the KL term: earlier weights of the policy, which stay until they are renewed."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from shoestring.model.lora import adapters_off
from shoestring.model.transformer import Transformer


class Reference:
    """A frozen copy of the policy; or with LoRA, its own base with the adapters off, or earlier ones.

    With LoRA it takes no memory until it is renewed, and then that of the adapters.
    """

    def __init__(self, policy: Transformer, *, is_adapted: bool) -> None:
        self._policy = policy
        self._copy = None if is_adapted else copy.deepcopy(policy).requires_grad_(False)
        self._adapters: dict[str, Tensor] = {}
        """Earlier factors of the adapters; none: they are off."""

    @contextmanager
    def model(self) -> Iterator[Transformer]:
        """The model that computes as the reference, to be used without gradients."""
        if self._copy is not None:
            yield self._copy
        elif not self._adapters:
            with adapters_off(self._policy):
                yield self._policy
        else:
            self._exchange()
            try:
                yield self._policy
            finally:
                self._exchange()

    def renew(self) -> None:
        """Become the policy as it now is."""
        if self._copy is not None:
            self._copy.load_state_dict(self._policy.state_dict())
        else:
            self._adapters = {name: tensor.detach().clone() for name, tensor in self._factors().items()}

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors to save."""
        return dict(self._adapters if self._copy is None else self._copy.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Become the reference that was saved."""
        if self._copy is not None:
            self._copy.load_state_dict(state)
        else:
            self._adapters = {name: tensor.to(self._policy.device) for name, tensor in state.items()}

    def _factors(self) -> dict[str, Tensor]:
        return {name: p for name, p in self._policy.named_parameters() if p.requires_grad}

    def _exchange(self) -> None:
        """Put the earlier factors in the place of the present ones, and those in theirs."""
        for name, parameter in self._factors().items():
            parameter.data, self._adapters[name] = self._adapters[name], parameter.data
