"""A store that gathers encoded conversations one by one."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shoestring.data.conversations import Conversations


class ConversationStore:
    """Conversations so far: ids, loss mask, digest and source of each."""

    def __init__(self, specials: frozenset[int]) -> None:
        self.specials = specials
        self.ids: list[NDArray[np.int32]] = []
        self.loss_masks: list[NDArray[np.bool_]] = []
        self.ends: list[int] = []
        self.text_bytes: list[int] = []
        self.digests: list[int] = []
        self.sources: list[int] = []
        self.turn_ends: set[int] = set()

    def add(self, ids: list[int], loss_mask: list[bool], text_bytes: int, source: int) -> None:
        """Add one conversation of source number `source`; `text_bytes` are those of the text in its loss."""
        self.ids.append(np.array(ids, dtype=np.int32))
        self.loss_masks.append(np.array(loss_mask, dtype=np.bool_))
        self.ends.append((self.ends[-1] if self.ends else 0) + len(ids))
        self.text_bytes.append(text_bytes)
        self.sources.append(source)
        digest = hashlib.sha256(self.ids[-1].tobytes()).digest()
        self.digests.append(int.from_bytes(digest[:8], "little"))
        self.turn_ends |= self._ends_of_turns(ids, loss_mask)

    def conversations(self, manifest: Mapping[str, Any], weights: tuple[float, ...]) -> Conversations:
        """All of them back to back."""
        return Conversations(
            ids=np.concatenate(self.ids),
            loss_mask=np.concatenate(self.loss_masks),
            ends=np.array(self.ends, dtype=np.int64),
            text_bytes=np.array(self.text_bytes, dtype=np.int64),
            digests=np.array(self.digests, dtype=np.uint64),
            manifest=manifest,
            turn_ends=tuple(sorted(self.turn_ends)),
            source_of=np.array(self.sources, dtype=np.int64),
            weights=weights,
        )

    def _ends_of_turns(self, ids: list[int], mask: list[bool]) -> set[int]:
        """Special tokens that are the last one of a turn of the assistant."""
        stops = zip(ids, mask, [*mask[1:], False], strict=True)
        return {
            token for token, inside, goes_on in stops if inside and not goes_on and token in self.specials
        }
