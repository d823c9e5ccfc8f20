"""Experts divided among two processes: another token dispatcher in the local one's place, the same bits."""

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import torch
import torch.distributed as dist

from shoestring import kernels
from shoestring.kernels import Routing
from shoestring.model.config import MoEConfig
from shoestring.model.moe import Experts, row_positions

MOE = MoEConfig(
    n_routed_experts=6, n_shared_experts=0, num_experts_per_tok=2, moe_intermediate_size=16
)
D, WORLD = 8, 2


class Exchange(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows_MD, in_splits, out_splits):
        ctx.splits = out_splits, in_splits
        received_MD = rows_MD.new_empty(sum(in_splits), rows_MD.shape[1])
        dist.all_to_all_single(received_MD, rows_MD.contiguous(), in_splits, out_splits)
        return received_MD

    @staticmethod
    def backward(ctx, d_rows_MD):
        return Exchange.apply(d_rows_MD, *ctx.splits), None, None


class TwoAllToAlls:
    def __init__(self, routing):
        load_E = routing.load_E()
        counts_E = torch.empty_like(load_E)  # of each process for this one's experts
        dist.all_to_all_single(counts_E, load_E)
        counts = counts_E.view(WORLD, -1)
        self.out_splits = load_E.view(WORLD, -1).sum(1).tolist()
        self.in_splits = counts.sum(1).tolist()
        self.ends_E = counts.sum(0).cumsum(0).to(torch.int32)
        experts_M = torch.arange(counts.shape[1]).repeat(WORLD).repeat_interleave(counts_E)
        self.order_M = experts_M.argsort(stable=True)  # they come by process, then by expert
        self.positions_NK, self.weights_NK = row_positions(routing.experts_NK), routing.weights_NK

    def dispatch(self, x_ND):
        rows_MD = kernels.dispatch(x_ND, self.positions_NK)
        return Exchange.apply(rows_MD, self.in_splits, self.out_splits)[self.order_M]

    def combine(self, rows_MD):
        rows_MD = rows_MD[self.order_M.argsort()]
        rows_MD = Exchange.apply(rows_MD, self.out_splits, self.in_splits)
        return kernels.combine(rows_MD, self.positions_NK, self.weights_NK)


def experts_of(choice, count):
    if choice == "random":
        return torch.stack([torch.randperm(6)[:2] for _ in range(count)])
    if choice == "one process":  # the other gets no rows
        return torch.tensor([[3, 5]]).repeat(count, 1)
    return torch.tensor([[0, 4]]).repeat(count, 1)  # most experts get none


dist.init_process_group("gloo")
me = dist.get_rank()
for choice in ("random", "one process", "two experts"):
    for counts in ((9, 4), (1, 30), (5, 0)):
        torch.manual_seed(0)
        whole = Experts(MOE, D)
        for parameter in whole.parameters():
            torch.nn.init.normal_(parameter, 0, 0.3)
        x_ND, upstream_ND = torch.randn(sum(counts), D, requires_grad=True), torch.randn(sum(counts), D)
        experts_NK = experts_of(choice, sum(counts))
        weights_NK = torch.rand(sum(counts), 2, requires_grad=True)
        expected_ND = whole(x_ND, Routing(experts_NK, weights_NK, torch.rand(sum(counts), 6)))
        expected_ND.backward(upstream_ND)

        mine_N = slice(0, counts[0]) if me == 0 else slice(counts[0], None)
        mine_E = slice(3 * me, 3 * me + 3)
        part = Experts(MOE, D)
        for name, parameter in whole.named_parameters():
            setattr(part, name, torch.nn.Parameter(parameter.detach()[mine_E].clone()))
        part.dispatcher = TwoAllToAlls
        x, weights = (tensor.detach()[mine_N].clone().requires_grad_() for tensor in (x_ND, weights_NK))
        out_ND = part(x, Routing(experts_NK[mine_N], weights, torch.rand(counts[me], 6)))
        out_ND.backward(upstream_ND[mine_N])
        assert torch.equal(out_ND, expected_ND[mine_N]), (choice, counts)
        assert torch.equal(x.grad, x_ND.grad[mine_N]), (choice, counts)
        assert torch.equal(weights.grad, weights_NK.grad[mine_N]), (choice, counts)
        for name, parameter in part.named_parameters():
            assert torch.equal(parameter.grad, whole.get_parameter(name).grad[mine_E]), (choice, counts, name)
dist.destroy_process_group()
"""


def test_two_processes_with_half_the_experts_each_give_the_bits_of_one(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "two.py"
    script.write_text(SCRIPT)
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    shared["PYTHONPATH"] = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env={**os.environ, **shared, "RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert [process.returncode for process in processes] == [0, 0], errors
