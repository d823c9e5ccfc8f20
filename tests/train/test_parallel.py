"""Ranks: sums, gradients and agreement over two processes; alone it changes nothing and needs no network."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from shoestring.device import Runtime
from shoestring.errors import ConfigError
from shoestring.train.parallel import Ranks, fingerprint

CPU = Runtime(device=torch.device("cpu"), compute_dtype=torch.float32)

TWO = """
import os
import torch
from torch import nn
from shoestring.device import choose
from shoestring.errors import ConfigError, ShoestringError
from shoestring.train import parallel

parallel.BUCKET_NUMBERS = 5  # several buckets, and a parameter larger than one
with parallel.Ranks(choose("cpu")) as ranks:
    me = ranks.rank
    assert ranks.sum([1, me, 0.5]) == [2.0, 1.0, 1.0]
    assert ranks.each(2.0**48 + me) == [2.0**48, 2.0**48 + 1]
    assert ranks.any(me == 1) and not ranks.any(False)
    assert ranks.sum([float("nan") if me else 1.0])[0] != 0

    model = nn.ParameterList(nn.Parameter(torch.ones(n)) for n in (3, 8, 2, 4))
    model.append(nn.Parameter(torch.ones(()), requires_grad=False))
    model[0].grad = torch.full((3,), 1.0 + me)
    if me:
        model[1].grad = torch.arange(8.0)
        model[2].grad = torch.ones(2)
    ranks.sum_gradients(model)
    assert model[0].grad.tolist() == [3.0] * 3
    assert model[1].grad.tolist() == list(range(8)) and model[2].grad.tolist() == [1.0, 1.0]
    assert model[3].grad is None and model[4].grad is None

    ranks.agree_on_weights(model)
    for differs in (lambda: ranks.agree_on_weights(nn.Linear(1, 1 + me)), lambda: ranks.agree("x", str(me))):
        try:
            differs()
        except ConfigError as error:
            assert "2 processes of this run differ in" in str(error)
        else:
            raise AssertionError("agreed")
    with parallel.Ranks(choose("cpu")) as inner:  # within a group that is there already
        assert inner.sum([1]) == [2]
    ranks.barrier()
    if me:
        os._exit(7)
    try:
        ranks.barrier()
    except ShoestringError as error:
        print(error)
assert not torch.distributed.is_initialized()
"""


def test_two_processes_sum_and_agree_and_one_that_ends_holds_up_nobody(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "two.py"
    script.write_text(TWO)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            env={**os.environ, **shared, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        (first, errors), (_, others) = (process.communicate(timeout=600) for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 7], errors + others
    assert "process 0 of 2 lost the others" in first


RESTARTED = """
import os
from shoestring.device import choose
from shoestring.train.parallel import Ranks

restarts = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
with Ranks(choose("cpu")) as ranks:
    assert ranks.sum([1]) == [2]
    if restarts < 1 and ranks.rank == 1:
        os._exit(3)
    ranks.barrier()
    os.write(1, f"met after {restarts}\\n".encode())  # in one piece: both write to the same pipe
"""


def test_processes_meet_again_after_torchrun_restarts_them(tmp_path: Path) -> None:
    """torchrun's store still holds the addresses of those that ended."""
    (tmp_path / "run.py").write_text(RESTARTED)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*torchrun, "--max-restarts", "1", str(tmp_path / "run.py")],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("met after 1") == 2


@given(st.integers(0, 1000), st.integers(1, 17))
def test_parts_follow_each_other_and_differ_by_one_at_most(count: int, world_size: int) -> None:
    parts = [Ranks(replace(CPU, rank=rank, world_size=world_size)).part(count) for rank in range(world_size)]
    assert [n for part in parts for n in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_gets_back_what_it_gave() -> None:
    model = nn.Linear(2, 2)
    model.weight.grad = gradient = torch.ones(2, 2)
    with Ranks(CPU) as ranks:
        assert not torch.distributed.is_initialized()
        assert (ranks.rank, ranks.world_size, ranks.is_first) == (0, 1, True)
        assert ranks.sum([0.1, 3]) == [0.1, 3.0]
        assert ranks.each(5.0) == [5.0]
        assert ranks.any(True)
        ranks.sum_gradients(model)
        ranks.agree("anything", "text")
        ranks.agree_on_weights(model)
    assert model.weight.grad is gradient
    assert model.bias.grad is None


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "WORLD_SIZE = 2, and the environment lacks RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT; start"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_PORT": "1"}, "lacks MASTER_ADDR; start with torchrun"),
    ],
)
def test_an_environment_that_is_not_torchruns_is_refused(monkeypatch, environment, words) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=words), Ranks(replace(CPU, world_size=2)):
        pass


def test_what_torchrun_would_not_say_is_refused(monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    with pytest.raises(ConfigError, match="RANK = 2 is not under"), Ranks(replace(CPU, rank=2, world_size=2)):
        pass
    monkeypatch.setenv("MASTER_PORT", "70000")
    with (
        pytest.raises(ConfigError, match="cannot meet the others at 2:70000"),
        Ranks(replace(CPU, world_size=2)),
    ):
        pass


def test_a_fingerprint_changes_with_any_number() -> None:
    model = nn.BatchNorm1d(3)
    before = fingerprint(model)
    assert fingerprint(nn.BatchNorm1d(3)) == before
    model.num_batches_tracked += 1
    assert fingerprint(model) != before
