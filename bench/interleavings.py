"""Two processes on one run's folder: whatever starts, resumes and dies when, one run comes of it.

    python bench/interleavings.py [--count 50] [--seed 0] [--json FILE]

Each interleaving takes sft, rl or pretrain and one folder. Processes come to it at random moments, two at a
time, with recipes of two seeds or with `--resume`, and some are killed by SIGKILL. They are forks of this
one, so they begin at once and meet in every part of a run. A process that another keeps out has to say so,
with that one's id. In the end the folder must hold the run of one seed, as it is when left alone: weights,
moments and log bit for bit, steps 1, 2, 3..., whole checkpoints, and a receipt of its seed whose segments do
not overlap. Exit code 3 when anything else comes out.
"""

import argparse
import json
import multiprocessing
import os
import random
import re
import signal
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

from kills import EMBEDDED, SAVE_EVERY, fingerprint, pretrain_recipe, rl_recipe, share_kernels

from shoestring import config as configs
from shoestring.cli.main import exit_code
from shoestring.errors import CheckpointError
from shoestring.rl import grpo
from shoestring.train import checkpoint, pretrain, sft
from shoestring.train.sft_recipe import SFTConfig

SEEDS = (1, 2)
MODULES = (grpo, pretrain, sft)
"""Imported here, so that no fork has to."""
STEPS = {"pretrain": 90, "rl": 15, "sft": 24}
EVENTS = 8
"""Processes that come, before the last two finish the run."""
KEPT_OUT = re.compile(r"process (\d+) of \S+ has trained in ")
REFUSALS = ("already holds a run; --resume", "has no run to resume", "cannot be set on --resume")
TIMEOUT_S = 300.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--verbs", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        share_kernels(Path(folder) / "cache")
        os.environ |= {"XDG_CACHE_HOME": str(Path(folder) / "cache"), "SHOESTRING_DEVICE": "cpu"}
        result = interleave(Path(folder), arguments.verbs, arguments.count, arguments.seed)
    for name, value in result.items():
        print(f"{name:<24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


def interleave(folder: Path, verbs: list[str], count: int, seed: int) -> dict:
    """Run all interleavings; returns their figures."""
    start, chance = time.monotonic(), random.Random(seed)
    alone = {verb: Alone(verb, folder / verb) for verb in verbs}
    parts = []
    for number in range(count):
        one = Interleaving(alone[verbs[number % len(verbs)]], folder / f"{number:03}" / "run", chance)
        one.run()
        parts.append(one)
        print(f"{number + 1:>3} {one}", file=sys.stderr, flush=True)
    faults = [f"{number}: {fault}" for number, one in enumerate(parts, start=1) for fault in one.faults]
    return {
        "interleavings": count,
        "verbs": ", ".join(verbs),
        "processes": sum(len(one.contenders) for one in parts),
        "killed": sum(c.is_killed for one in parts for c in one.contenders),
        "kept_out_by_the_lock": sum(one.kept_out for one in parts),
        "refused_otherwise": sum(one.refused for one in parts),
        "segments_with_checkpoint": sum(one.segments for one in parts),
        "faults": faults,
        "seconds": round(time.monotonic() - start, 1),
        "verdict": "FAIL" if faults else "PASS",
    }


class Alone:
    """The runs of both seeds, left alone."""

    def __init__(self, verb: str, folder: Path) -> None:
        self.verb, make = verb, {"pretrain": pretrain_recipe, "rl": rl_recipe, "sft": sft_recipe}[verb]
        self.recipes, self.fingerprints = {}, {}
        start = time.monotonic()
        for seed in SEEDS:
            place = folder / str(seed)
            place.mkdir(parents=True)
            self.recipes[seed] = make(place, STEPS[verb], seed)
            contender = Contender.start(verb, [str(self.recipes[seed])], place / "run")
            if contender.wait() != 0:
                raise SystemExit(f"a {verb} that was left alone failed: {contender.said}")
            self.fingerprints[seed] = fingerprint(place / "run")
        self.seconds = (time.monotonic() - start) / len(SEEDS)


@dataclass
class Contender:
    """A process that comes to a folder."""

    process: multiprocessing.Process
    log: Path
    is_killed: bool = False

    @classmethod
    def start(cls, verb: str, source: list[str], out: Path) -> "Contender":
        out.parent.mkdir(parents=True, exist_ok=True)
        log = out.parent / f"{time.monotonic_ns()}.log"
        log.touch()
        arguments = [verb, *source, "--out", str(out), "--quiet"]
        process = multiprocessing.get_context("fork").Process(target=run_verb, args=(arguments, log))
        process.start()
        return cls(process, log)

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    @property
    def said(self) -> str:
        return self.log.read_text().strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.is_killed = self.process.exitcode == -signal.SIGKILL

    def wait(self) -> int | None:
        self.process.join(TIMEOUT_S)
        return self.process.exitcode


def run_verb(arguments: list[str], log: Path) -> None:
    """Be `shoestring` with these arguments, with all that it prints in a file."""
    file = os.open(log, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os._exit(exit_code(arguments))


@dataclass
class Interleaving:
    """One folder, to which processes come."""

    alone: Alone
    out: Path
    chance: random.Random
    contenders: list[Contender] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    kept_out: int = 0
    refused: int = 0
    segments: int = 0

    def __str__(self) -> str:
        killed = sum(contender.is_killed for contender in self.contenders)
        return (
            f"{self.alone.verb:<9} {len(self.contenders)} processes, {killed} killed, "
            f"{self.kept_out} kept out, {self.refused} refused, {self.segments} segments: "
            f"{'; '.join(self.faults) or 'one run'}"
        )

    def run(self) -> None:
        for _ in range(EVENTS):
            alive = [contender for contender in self.contenders if contender.is_alive]
            if len(alive) == 2 or (alive and self.chance.random() < 0.5):
                self.pause()
                self.chance.choice(alive).kill()
            self.come()
            self.pause()
        for contender in self.contenders:
            if contender.is_alive and self.chance.random() < 0.5:
                contender.kill()
        for _ in range(3):
            if (self.out / "report.json").is_file():
                break
            for contender in (self.come(), self.come()):
                contender.wait()
        for contender in self.contenders:
            contender.wait()
        self.check_processes()
        self.check_folder()

    def come(self) -> Contender:
        """Let another process come: to go on where there is a run, mostly, else with one of the recipes."""
        has_run = (self.out / "config.toml").is_file()
        recipe = str(self.alone.recipes[self.chance.choice(SEEDS)])
        source = ["--resume"] if has_run and self.chance.random() < 0.8 else [recipe]
        contender = Contender.start(self.alone.verb, source, self.out)
        self.contenders.append(contender)
        return contender

    def pause(self) -> None:
        """Wait, mostly for less than a run takes."""
        time.sleep(self.chance.choice((0.0, 0.1, 1.0)) * self.chance.random() * self.alone.seconds)

    def check_processes(self) -> None:
        """Each process was killed, finished, or said why it may not."""
        ids = {contender.process.pid for contender in self.contenders}
        for contender in self.contenders:
            code, said = contender.process.exitcode, contender.said
            if contender.is_killed or code == 0:
                continue
            match = KEPT_OUT.search(said)
            if code == 2 and match:
                self.kept_out += 1
                if int(match[1]) not in ids - {contender.process.pid}:
                    self.faults.append(f"kept out by an unknown process: {said}")
            elif code == 2 and any(words in said for words in REFUSALS):
                self.refused += 1
            else:
                self.faults.append(f"exit code {code}: {said[-300:]}")

    def check_folder(self) -> None:
        """The folder holds the run of one seed, whole, and nothing of another one."""
        if not (self.out / "report.json").is_file():
            self.faults.append("the run did not finish")
            return
        seed = tomllib.loads((self.out / "config.toml").read_text())["seed"]
        receipt = json.loads((self.out / "receipt.json").read_text())
        if receipt["seed"] != seed or receipt["recipe"]["seed"] != seed:
            self.faults.append(f"the recipe's seed is {seed}, the receipt's {receipt['seed']}")
        if (found := fingerprint(self.out)) != self.alone.fingerprints[seed]:
            parts = [name for name, value in self.alone.fingerprints[seed].items() if found[name] != value]
            self.faults.append(f"other {' and '.join(parts)} than those of seed {seed} left alone")
        steps = [json.loads(line)["step"] for line in (self.out / "metrics.jsonl").read_text().splitlines()]
        if steps != list(range(1, len(steps) + 1)):
            self.faults.append(f"the log has steps {steps}")
        for one, other in zip(receipt["history"], receipt["history"][1:], strict=False):
            if one["end"] > other["start"] or one["step"] > other["step"] or other["changes"]:
                self.faults.append(f"segments {one} and {other} are not of one run")
        self.segments = len(receipt["history"])
        for path in (self.out / "checkpoints").iterdir():
            if "." in path.name:  # what a killed process was making or removing
                continue
            try:
                checkpoint.verify(path)
            except CheckpointError as error:
                self.faults.append(str(error))


def sft_recipe(folder: Path, steps: int, seed: int) -> Path:
    """Recipe for small steps of the model that comes with the package, on sums."""
    chance, talks = random.Random(seed), folder / "talks.jsonl"
    with open(talks, "w") as file:
        for _ in range(steps):
            one, other = chance.randint(1, 20), chance.randint(1, 20)
            question = {"role": "user", "content": f"{one}+{other}?"}
            answer = {
                "role": "assistant",
                "content": f"{one + other}",
                "reasoning_content": f"{one}, {other}",
            }
            file.write(json.dumps({"messages": [question, answer]}) + "\n")
    recipe = SFTConfig(
        model=str(EMBEDDED),
        data=(str(talks),),
        epochs=4.0,
        seq_len=128,
        batch_tokens=80,
        micro_tokens=256,
        save_every=SAVE_EVERY,
        eval_every=50,
        seed=seed,
    )
    configs.save(recipe, folder / "recipe.toml")
    return folder / "recipe.toml"


if __name__ == "__main__":
    sys.exit(main())
