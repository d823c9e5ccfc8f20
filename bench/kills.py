"""Crash safety of training: runs killed by SIGKILL at random moments and resumed equal an undisturbed run.

    python bench/kills.py [--verb pretrain|rl] [--kills 20] [--seed 0] [--json FILE]

Runs `shoestring pretrain` or `shoestring rl` in processes of their own; `rl` continues from the model that
comes with the package. Some runs are killed while they start, some during training, some while they write a
checkpoint. The final weights, the optimizer's moments and the log must be equal bit for bit; exit code 3
when they are not.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from shoestring import config as configs
from shoestring.data.corpus import DataConfig
from shoestring.durable import cache_folder
from shoestring.kernels.cpu_build import library
from shoestring.model.config import MLAConfig, ModelConfig, MoEConfig
from shoestring.model.hf.config import save_config
from shoestring.rl.losses import PolicyLossConfig
from shoestring.rl.recipe import GRPOConfig, PolicyOptim, TaskShare
from shoestring.train.optim import OptimConfig
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.schedule import ScheduleConfig

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "shoestring" / "embedded" / "mini"
RUN = "import sys; from shoestring.cli.main import main; sys.exit(main())"
MOMENTS = ("saving", "training", "training", "starting")
SAVE_EVERY = 3
TIMEOUT_S = 120.0
TIMINGS = {"tokens_per_s", "peak_share", "samples_per_s", "sample_s", "update_s"}
STEPS = {"pretrain": 360, "rl": 120}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verb", choices=STEPS, default="pretrain")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = arguments.steps or STEPS[arguments.verb]
        result = compare(arguments.verb, Path(folder), arguments.kills, steps, arguments.seed)
    for name, value in result.items():
        print(f"{name:<24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


def compare(verb: str, folder: Path, kills: int, steps: int, seed: int) -> dict:
    """Run once undisturbed and once with kills; the figures of both."""
    recipe = {"pretrain": pretrain_recipe, "rl": rl_recipe}[verb](folder, steps, seed)
    share_kernels(folder / "cache")
    alone, killed = folder / "alone", folder / "killed"
    start = time.monotonic()
    finish(start_run(verb, recipe, alone, resume=False))
    whole_s = time.monotonic() - start
    chance = random.Random(seed)
    moments = [MOMENTS[number % len(MOMENTS)] for number in range(kills)]
    chance.shuffle(moments)
    # Each process may do its share of the steps, less those up to the next checkpoint and some more.
    most_steps = max(steps // kills - SAVE_EVERY - 3, 1)
    kill_moments: list[str] = []
    process = start_run(verb, recipe, killed, resume=False)
    for moment in moments:
        if moment == "starting":
            sleep(process, chance.uniform(0.0, whole_s / 4))
        else:
            wait_for_steps(process, killed, chance.randint(0, most_steps))
            if moment == "saving":
                wait(process, lambda life=process: is_saving(life, killed))
            sleep(process, chance.uniform(0.0, 0.05))
        if process.poll() is None:
            process.kill()
            process.wait()
            kill_moments.append("saving" if is_saving(process, killed) else "")
            process = start_run(verb, recipe, killed, resume=(killed / "config.toml").is_file())
    finish(process)
    one, other = fingerprint(alone), fingerprint(killed)
    return {
        "verb": verb,
        "kills": len(kill_moments),
        "of_these_while_saving": kill_moments.count("saving"),
        "lives_with_a_checkpoint": num_segments(killed),
        "steps": steps,
        "sha256_weights_alone": one["weights"],
        "sha256_weights_killed": other["weights"],
        "sha256_moments_alone": one["moments"],
        "sha256_moments_killed": other["moments"],
        "logs_equal": one["log"] == other["log"],
        "seconds": round(time.monotonic() - start, 1),
        "verdict": "PASS" if one == other and len(kill_moments) == kills else "FAIL",
    }


def pretrain_recipe(folder: Path, steps: int, seed: int) -> Path:
    """Recipe for a small model with all parts of DeepSeek-V3, trained with Muon on random words."""
    chance = random.Random(seed)
    words = ["def", "return", "class", "yield", "(x):", "[y]", "= 1", "'text'", "while", "# note", "\n"]
    (folder / "text").mkdir()
    for number in range(60):
        text = " ".join(chance.choices(words, k=chance.randint(100, 400)))
        (folder / "text" / f"{number}.py").write_text(f"# {number}\n{text}\n")
    shape = ModelConfig(
        model_type="deepseek_v3",
        vocab_size=300,
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=3,
        num_attention_heads=2,
        attention=MLAConfig(
            q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16
        ),
        moe=MoEConfig(
            n_routed_experts=8,
            n_shared_experts=1,
            num_experts_per_tok=2,
            moe_intermediate_size=32,
            first_k_dense_replace=1,
            n_group=2,
            topk_group=1,
        ),
        num_nextn_predict_layers=1,
    )
    save_config(shape, folder / "shape")
    recipe = PretrainConfig(
        model=str(folder / "shape"),
        total_tokens=steps * 4 * 32,
        seq_len=32,
        batch_size=4,
        micro_batch_size=2,
        save_every=SAVE_EVERY,
        eval_every=50,
        seed=seed,
        data=DataConfig(sources=(str(folder / "text"),), heldout_fraction=0.1),
        optim=OptimConfig(name="muon"),
        schedule=ScheduleConfig(warmup_ratio=0.05, batch_ramp_until=0.0),
    )
    configs.save(recipe, folder / "recipe.toml")
    return folder / "recipe.toml"


def rl_recipe(folder: Path, steps: int, seed: int) -> Path:
    """Recipe for small steps of a model that thinks, with two optimizer steps each and a reference model."""
    recipe = GRPOConfig(
        model=str(EMBEDDED),
        tasks=(TaskShare(name="countdown"),),
        steps=steps,
        num_prompts=2,
        num_generations=6,
        max_tokens=60,
        steps_per_generation=2,
        ref_model_sync_steps=7,
        save_every=SAVE_EVERY,
        eval_every=50,
        seed=seed,
        loss=PolicyLossConfig(beta=0.01),
        optim=PolicyOptim(name="muon", lr=3e-4, muon_lr=3e-4),
    )
    configs.save(recipe, folder / "recipe.toml")
    return folder / "recipe.toml"


def share_kernels(cache: Path) -> None:
    """Give the runs a cache of their own that has the compiled kernels, so that no run compiles them."""
    library()
    kernels = cache_folder("kernels")
    kernels.mkdir(parents=True, exist_ok=True)
    (cache / "shoestring").mkdir(parents=True)
    (cache / "shoestring" / "kernels").symlink_to(kernels)


def start_run(verb: str, recipe: Path, out: Path, *, resume: bool) -> subprocess.Popen:
    source = ["--resume"] if resume else [str(recipe)]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SHOESTRING_DEVICE": "cpu",
        "XDG_CACHE_HOME": str(recipe.parent / "cache"),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    command = [sys.executable, "-c", RUN, verb, *source, "--out", str(out), "--quiet"]
    log = open(out.with_suffix(".log"), "a")  # noqa: SIM115 (the process writes to it)
    return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def finish(process: subprocess.Popen) -> None:
    if process.wait(timeout=600) != 0:
        raise SystemExit(f"a run failed with exit code {process.returncode}")


def sleep(process: subprocess.Popen, seconds: float) -> None:
    """Wait for so many seconds, or until the process ends."""
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return


def wait_for_steps(process: subprocess.Popen, out: Path, count: int) -> None:
    """Wait until this process has trained `count` steps.

    It starts by cutting the log back to its checkpoint, as a new file, and then adds a row per step.
    """
    log = out / "metrics.jsonl"
    before = log.stat().st_ino if log.is_file() else None
    wait(process, lambda: log.is_file() and log.stat().st_ino != before)
    rows = log.read_bytes().count(b"\n") if log.is_file() else 0
    wait(process, lambda: log.read_bytes().count(b"\n") >= rows + count)


def wait(process: subprocess.Popen, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline and not condition():
        time.sleep(0.001)


def is_saving(process: subprocess.Popen, out: Path) -> bool:
    """Return whether the process is writing a checkpoint; if killed then, its temporary folder remains."""
    return any((out / "checkpoints").glob(f"step-*.tmp-*-{process.pid}"))


def fingerprint(out: Path) -> dict:
    """Hashes of the final weights and moments, and the log without times."""
    last = max((out / "checkpoints").glob("step-" + "[0-9]" * 8))  # not what was being removed
    files = {"weights": out / "model" / "model.safetensors", "moments": last / "trainer.safetensors"}
    hashes = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    log = [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]
    return {**hashes, "log": json.dumps(log)}


def num_segments(out: Path) -> int:
    """Number of processes that saved a checkpoint, the last one included, from the run's receipt."""
    return json.loads((out / "receipt.json").read_text())["segments"]


if __name__ == "__main__":
    sys.exit(main())
