"""Resumable batches from memory-mapped shards: the same stream after a stop and over any number of ranks."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from shoestring.data.packing import Epoch, Ids
from shoestring.data.shards import Shard
from shoestring.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One rank's rows of a global batch; `targets` are `inputs` shifted by one."""

    inputs: Ids  # (B, T)
    targets: Ids  # (B, T)


class Loader:
    """Endless batches of one shard: epoch after epoch, each in its own order.

    The position in the stream is (epoch, row). So `load_state` costs one shuffle of the document numbers,
    however much was read before, and batch size, rank and world size may differ after a restart.
    """

    def __init__(
        self,
        shard: Shard,
        *,
        seq_len: int,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        fim_rate: float = 0.1,
    ) -> None:
        """`batch_size` counts the rows of all ranks together.

        Raises ConfigError for arguments that do not fit, DataError for a shard shorter than one row.
        """
        self.shard, self.seq_len, self.batch_size, self.seed = shard, seq_len, batch_size, seed
        self.rank, self.world_size, self.fim_rate = rank, world_size, fim_rate
        self.epoch, self.row = 0, 0
        self._epochs: dict[int, Epoch] = {}
        self._check()

    @property
    def tokens_per_epoch(self) -> int:
        """Targets in the current epoch; epochs differ by a few, as other documents are rearranged."""
        return self._epoch(self.epoch).num_rows * self.seq_len

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return self.next_batch(self.batch_size)

    def next_batch(self, rows: int) -> Batch:
        """This rank's share of the next `rows` rows: `rows / world_size` of them, rank 0 the first."""
        self._check_rows(rows)
        share = rows // self.world_size
        epoch, row = self._ahead(self.rank * share)
        ids = []
        for _ in range(share):
            number = int(self._epoch(epoch).row_order[row])
            ids.append(self._epoch(epoch).row(number))
            row += 1
            if row == self._epoch(epoch).num_rows:
                epoch, row = epoch + 1, 0
        self.epoch, self.row = self._ahead(rows)
        rows_ids = np.stack(ids)
        return Batch(inputs=rows_ids[:, :-1], targets=rows_ids[:, 1:])

    def state(self) -> dict[str, Any]:
        """The position in the stream and the settings that the stream depends on, for JSON."""
        return {"epoch": self.epoch, "row": self.row, **self._identity()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue at the position of `state`; DataError names the difference if it is of another stream."""
        for name, value in self._identity().items():
            if state.get(name) != value:
                raise DataError(
                    f"the saved loader had {name} = {state.get(name)!r}, now it is {value!r}; "
                    "resume with the same data and settings, or start a new run"
                )
        epoch, row = state.get("epoch"), state.get("row")
        if type(epoch) is not int or type(row) is not int or epoch < 0:
            raise DataError(f"the saved loader's place, epoch {epoch!r} row {row!r}, is damaged")
        if not 0 <= row < self._epoch(epoch).num_rows:
            raise DataError(f"the saved loader's row {row} is not in epoch {epoch}")
        self.epoch, self.row = epoch, row

    def _identity(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "seq_len": self.seq_len,
            "fim_rate": self.fim_rate,
            "shard": self.shard.key,
        }

    def _epoch(self, number: int) -> Epoch:
        if number not in self._epochs:
            for old in [n for n in self._epochs if n < number - 1]:
                del self._epochs[old]
            self._epochs[number] = Epoch(
                self.shard, seed=self.seed, epoch=number, seq_len=self.seq_len, fim_rate=self.fim_rate
            )
        return self._epochs[number]

    def _ahead(self, rows: int) -> tuple[int, int]:
        """(epoch, row) of the row that comes `rows` after the next one."""
        epoch, row = self.epoch, self.row + rows
        while row >= (count := self._epoch(epoch).num_rows):
            epoch, row = epoch + 1, row - count
        return epoch, row

    def _check_rows(self, rows: int) -> None:
        if rows < 1 or rows % self.world_size:
            raise ConfigError(f"a batch of {rows} rows does not divide among {self.world_size} ranks")

    def _check(self) -> None:
        if self.seq_len < 1 or self.seed < 0:
            raise ConfigError(
                f"seq_len = {self.seq_len} must be positive and seed = {self.seed} not negative"
            )
        if not 0 <= self.rank < self.world_size:
            raise ConfigError(f"rank = {self.rank} is not under world_size = {self.world_size}")
        if not 0.0 <= self.fim_rate <= 1.0:
            raise ConfigError(f"fim_rate = {self.fim_rate} is not between 0 and 1")
        if self.fim_rate and self.shard.special.fim is None:
            raise ConfigError(f"fim_rate = {self.fim_rate}, but the shards were made with fim_rate = 0")
        self._check_rows(self.batch_size)
        shortest = len(self.shard.ids) + 2 * len(self.shard)  # bos and eos; rearranging only adds
        if shortest <= self.seq_len:
            raise DataError(
                f"the training text has {shortest} tokens, under one row of {self.seq_len + 1};"
                " add text or lower seq_len"
            )
