"""Training and decoding beside other programs: the share of their quiet speed that is kept.

    python bench/busy.py [--json FILE] [--programs 1,2,4] [--seconds 6] [--rounds 3] [--only training]

Starts so many busy programs (loops of Python), waits until the number of threads has followed, and measures;
before each of these it measures without any. Training is that of bench/train_speed.py's V3-shaped model,
decoding is one greedy stream of a model in int8 with V2-Lite's shape, 6 layers and 140M random weights.
The fair share is what the scheduler leaves of two cores to two threads beside k others: 2 / (2 + k), with
the cores of this machine for 2. A figure is the median of `rounds`. Exit code 3 when less than 70% of it is
kept.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST = 0.7
"""Of the fair share, that is to be kept."""
SETTLE_S = 3.0
"""Time for the number of threads to follow."""
JOBS = ("training", "decoding")
STEP_TOKENS = 257
BUSY = [sys.executable, "-c", "while True: pass"]


def training():
    """A function that takes a step, and the tokens of each."""
    import torch
    from train_speed import ours, shapes

    from shoestring.threads import Threads

    config = shapes()["v3"]
    step, threads = ours(config), Threads()
    ids = torch.randint(0, config.vocab_size, (4, STEP_TOKENS), generator=torch.Generator().manual_seed(1))

    def take_step():
        step(ids)
        threads.follow()
        return ids[:, 1:].numel()

    return take_step


def decoding():
    """A function that decodes a token."""
    from dataclasses import replace

    import torch
    from engine import Ours, prompts

    from shoestring.engine.request import Request, SamplingParams
    from shoestring.model.hf.folder import save_model
    from shoestring.model.presets import PRESETS
    from shoestring.model.transformer import Transformer, initialize

    lite = PRESETS["deepseek-v2-lite"]
    config = replace(
        lite,
        num_hidden_layers=6,
        vocab_size=32000,
        hidden_size=1024,
        intermediate_size=2816,
        num_attention_heads=8,
        moe=replace(lite.moe, n_routed_experts=16, moe_intermediate_size=512, num_experts_per_tok=4),
    )
    with tempfile.TemporaryDirectory() as folder:
        model = initialize(Transformer(config), torch.Generator().manual_seed(0))
        save_model(model, Path(folder) / "model", dtype=torch.bfloat16)
        del model
        engine = Ours(Path(folder) / "model", quantization="int8").engine
    (ids,) = prompts(1, 16)
    count = 0

    def take_step():
        nonlocal count
        if not engine.has_unfinished():
            count += 1
            params = SamplingParams(temperature=0, max_tokens=256, ignore_eos=True)
            request = Request(request_id=str(count), prompt_token_ids=ids, sampling_params=params)
            engine.add_request(request)
        engine.step()
        return 1

    return take_step


def child(job, seconds):
    """Measure in this process, once for each line of standard input; prints JSON."""
    sys.path.insert(0, str(ROOT))
    import shoestring  # noqa: F401, I001  (before torch)
    import torch

    take_step = training() if job == "training" else decoding()
    take_step()
    print(json.dumps({"threads": torch.get_num_threads()}), flush=True)
    for _ in sys.stdin:
        _speed(take_step, SETTLE_S)
        print(
            json.dumps({"speed": _speed(take_step, seconds), "threads": torch.get_num_threads()}), flush=True
        )


def _speed(take_step, seconds):
    """Tokens per second."""
    begin, count = time.perf_counter(), 0
    while (passed := time.perf_counter() - begin) < seconds:
        count += take_step()
    return count / passed


class Child:
    """The program that is measured, in a process of its own."""

    def __init__(self, job, seconds):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        command = [sys.executable, __file__, "--child", job, "--seconds", str(seconds)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, env=environment, **pipes)
        self.threads = self._read()["threads"]

    def measure(self, programs):
        """Its speed and threads beside so many busy programs."""
        busy = [subprocess.Popen(BUSY) for _ in range(programs)]
        try:
            self.process.stdin.write("measure\n")
            self.process.stdin.flush()
            return self._read()
        finally:
            for program in busy:
                program.kill()
                program.wait()

    def _read(self):
        return json.loads(self.process.stdout.readline())

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def measure(job, programs, seconds, rounds):
    """Rows of one job: the share kept beside each number of programs."""
    child = Child(job, seconds)
    cores, rows = len(os.sched_getaffinity(0)), []
    for count in programs:
        pairs = [(child.measure(0), child.measure(count)) for _ in range(rounds)]
        kept = statistics.median(beside["speed"] / quiet["speed"] for quiet, beside in pairs)
        fair = cores / (cores + count)
        row = {
            "job": job,
            "programs": count,
            "quiet_tokens_per_s": statistics.median(quiet["speed"] for quiet, _ in pairs),
            "tokens_per_s": statistics.median(beside["speed"] for _, beside in pairs),
            "threads": [[quiet["threads"], beside["threads"]] for quiet, beside in pairs],
            "kept": kept,
            "fair_share": fair,
            "of_fair_share": kept / fair,
        }
        rows.append(row)
        print(
            f"  {job} beside {count}: {row['quiet_tokens_per_s']:,.1f} -> {row['tokens_per_s']:,.1f}"
            f" tokens/s, {kept:4.0%} kept, fair share {fair:.0%}: {kept / fair:.0%} of it,"
            f" threads {row['threads']}",
            flush=True,
        )
    child.end()
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--programs", default="1,2,4")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=JOBS)
    parser.add_argument("--child", choices=JOBS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.seconds)
        return 0
    programs = [int(count) for count in arguments.programs.split(",")]
    jobs = [arguments.only] if arguments.only else JOBS
    rows = [row for job in jobs for row in measure(job, programs, arguments.seconds, arguments.rounds)]
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 3 if any(row["of_fair_share"] < LEAST for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
