"""Data-parallel processes under torchrun: they sum gradients and figures, and decide together.

Every process holds all the weights and learns from its own part of a step. The only collective is a sum, so
nothing that another process sends is ever unpickled.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn

from shoestring.device import Runtime
from shoestring.errors import ConfigError, ShoestringError

TIMEOUT = timedelta(hours=1)
"""Longest wait for another process, as for the first one while it saves and evaluates."""
BUCKET_NUMBERS = 1 << 26
"""Gradients summed in one message: 256 MiB of float32."""
_RESTART_COUNT = "TORCHELASTIC_RESTART_COUNT"
_ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Ranks:
    """The processes of a run and the rank of this one, from 0. Use as a context manager.

    All of them must call the same methods in the same order. A single process needs no network, and its sums
    are its own values. When one process ends early the calls of the others raise ShoestringError (on GPUs
    torchrun ends them), so that none waits for it.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.rank, self.world_size = runtime.rank, runtime.world_size
        self._device = runtime.device
        self._is_owner = False

    @property
    def is_first(self) -> bool:
        """Return whether this process writes the files and the terminal."""
        return self.rank == 0

    @property
    def gpus(self) -> tuple[str, ...]:
        """The GPU of this process, as nvidia-smi names it; none on a processor."""
        if self._device.type != "cuda":
            return ()
        return (f"GPU-{torch.cuda.get_device_properties(self._device).uuid}",)

    def __enter__(self) -> Self:
        """Connect to the other processes; ConfigError without torchrun's environment or a connection."""
        if self.world_size > 1:
            _check_environment(self.rank, self.world_size)
            self._connect()
        return self

    def __exit__(self, kind: type[BaseException] | None, _: object, __: TracebackType | None) -> None:
        # After an error NCCL would wait for what never comes: the end of the process closes its connections.
        if self._is_owner and (kind is None or self._device.type == "cpu"):
            torch.distributed.destroy_process_group()
        self._is_owner = False

    def part(self, count: int) -> range:
        """This process's indices among `count` items: consecutive parts in the order of the ranks."""
        return range(count * self.rank // self.world_size, count * (self.rank + 1) // self.world_size)

    def sum(self, values: Iterable[float]) -> list[float]:
        """Each value summed over the processes, in float64: the same on all of them."""
        own = [float(value) for value in values]
        if self.world_size == 1:
            return own
        total = torch.tensor(own, dtype=torch.float64, device=self._device)
        self._reduce(total)
        return [float(value) for value in total.tolist()]

    def count(self, number: int) -> int:
        """A count summed over the processes."""
        return int(self.sum([number])[0])

    def each(self, value: float) -> list[float]:
        """The value of every process, in the order of the ranks."""
        return self.sum(value if rank == self.rank else 0.0 for rank in range(self.world_size))

    def any(self, flag: bool) -> bool:
        """Return whether the flag is true on any process."""
        return self.sum([flag])[0] > 0

    def barrier(self) -> None:
        """Wait until every process has called this."""
        self.sum([0.0])

    def sum_gradients(self, model: nn.Module) -> None:
        """Replace every gradient by its sum over the processes; a missing one counts as zeros.

        A parameter that has no gradient on any process gets none, so that no optimizer moves it.
        """
        if self.world_size == 1:
            return
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        holders = self.sum(parameter.grad is not None for parameter in trainable)
        present = [parameter for parameter, count in zip(trainable, holders, strict=True) if count]
        for bucket in _buckets(present):
            flat = torch.cat([_gradient(parameter).flatten() for parameter in bucket])
            self._reduce(flat)
            sums = flat.split([parameter.numel() for parameter in bucket])
            for parameter, gradient in zip(bucket, sums, strict=True):
                parameter.grad = gradient.view_as(parameter).to(parameter.dtype)

    def agree(self, what: str, text: str) -> None:
        """ConfigError on every process if `text` is not the same on all of them."""
        digest = hashlib.blake2b(text.encode(), digest_size=6).digest()  # 48 bits: exact as a float64
        if len(set(self.each(int.from_bytes(digest, "big")))) > 1:
            raise ConfigError(
                f"the {self.world_size} processes of this run differ in {what}; give all of them the same "
                "recipe, and a start and --out that are the same folder on every machine"
            )

    def agree_on_weights(self, model: nn.Module) -> None:
        """ConfigError on every process if the model's tensors are not the same bits on all of them."""
        if self.world_size > 1:
            self.agree("the model's weights", fingerprint(model))

    def _connect(self) -> None:
        is_gpu = self._device.type == "cuda"
        if is_gpu:
            if (self._device.index or 0) >= torch.cuda.device_count():
                raise ConfigError(
                    f"process {self.rank} should use GPU {self._device.index} and this machine has "
                    f"{torch.cuda.device_count()}; start one process a GPU with --nproc-per-node"
                )
            torch.cuda.set_device(self._device)
        if torch.distributed.is_initialized():  # by the caller, who closes it too
            return
        try:
            torch.distributed.init_process_group(
                "nccl" if is_gpu else "gloo",
                store=self._store(),
                rank=self.rank,
                world_size=self.world_size,
                timeout=TIMEOUT,
                device_id=self._device if is_gpu else None,
            )
        except (RuntimeError, ValueError) as error:
            where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
            raise ConfigError(f"process {self.rank} cannot meet the others at {where}: {error}") from error
        self._is_owner = True

    def _store(self) -> Any:
        """The store where the processes meet, with names of its own for each restart of torchrun.

        torchrun's store outlives the processes: without it they would find the addresses of those that ended.
        """
        c10d: Any = torch.distributed  # whose stubs leave these names out
        store, _, _ = next(iter(c10d.rendezvous("env://", self.rank, self.world_size, timeout=TIMEOUT)))
        return c10d.PrefixStore(f"restart-{os.environ.get(_RESTART_COUNT, 0)}", store)

    def _reduce(self, tensor: Tensor) -> None:
        try:
            torch.distributed.all_reduce(tensor)
        except RuntimeError as error:
            raise ShoestringError(
                f"process {self.rank} of {self.world_size} lost the others: one of them ended, and its own "
                "message says why; --resume goes on from the last checkpoint"
            ) from error


def require_one_process(runtime: Runtime, activity: str) -> None:
    """Raise ConfigError under torchrun: each process would train alone and overwrite what the others save."""
    if runtime.world_size > 1:
        raise ConfigError(
            f"WORLD_SIZE = {runtime.world_size}: {activity} runs in one process; start just one"
        )


def fingerprint(model: nn.Module) -> str:
    """Name, shape and sum of bytes of every tensor; sums of integers do not depend on their order."""
    sums = {
        name: (tuple(tensor.shape), tensor.detach().reshape(-1).view(torch.uint8).sum(dtype=torch.int64))
        for name, tensor in model.state_dict().items()
    }
    return str([(name, shape, int(total)) for name, (shape, total) in sums.items()])


def _check_environment(rank: int, world_size: int) -> None:
    """Raise ConfigError if a variable that torchrun sets is missing."""
    missing = [name for name in _ENVIRONMENT if not os.environ.get(name)]
    if missing:
        raise ConfigError(
            f"WORLD_SIZE = {world_size}, and the environment lacks {', '.join(missing)}; start with "
            "torchrun --nproc-per-node N -m shoestring.cli.main ..., or unset WORLD_SIZE for one process"
        )
    if rank >= world_size:
        raise ConfigError(f"RANK = {rank} is not under WORLD_SIZE = {world_size}; start with torchrun")


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """The parameters in their order, in groups of about BUCKET_NUMBERS numbers."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        if bucket and sum(p.numel() for p in bucket) + parameter.numel() > BUCKET_NUMBERS:
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket
