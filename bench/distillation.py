"""Distillation compared with reinforcement alone, for two small students with equal compute.

    python bench/distillation.py --run runs/demo [--seeds 3] [--rl-steps 130] [--size NAME] [--json FILE]

Teacher and training texts come from a finished demo. Each student is pretrained as in recipes/r1-mini.toml,
then either trained by reinforcement for --rl-steps steps, or fine-tuned on the teacher's verified answers
with as many FLOPs, including those of the teacher's sampling. Scores are pass@1 on held-out Countdown
problems at temperature 1. DeepSeek-R1 (arXiv 2501.12948, section 4.1) found that distillation is better; exit
code 3 when it is not here. --out keeps finished parts, so a run that was stopped can be started again.
"""

import argparse
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from shoestring import config as configs
from shoestring.device import choose
from shoestring.distill.distill import distill
from shoestring.evals.model_score import score_model
from shoestring.model.cost import decode_flops_per_token, train_flops_per_token
from shoestring.model.presets import PRESETS, R1_MINI_SMALL
from shoestring.rl.grpo import grpo
from shoestring.rl.pipeline import settings_of
from shoestring.rl.stages import RecipeConfig
from shoestring.train.sft import sft

RECIPE = Path(__file__).parents[1] / "recipes" / "r1-mini.toml"
SIZES = {
    "r1-mini-small": R1_MINI_SMALL,
    "r1-mini-smaller": replace(R1_MINI_SMALL, hidden_size=48, intermediate_size=128),
}


def result_of(path, make):
    """Read a JSON result, or make and write it; a part that was stopped starts from the beginning."""
    if not path.is_file():
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        result = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(result))
    return json.loads(path.read_text())


def measure(size, seed, arguments, runtime):
    """Scores of one student before training, after reinforcement and after distillation, with FLOPs."""
    recipe = configs.load(RecipeConfig, RECIPE)
    stages = {stage.name: stage for stage in recipe.stages}
    out, run = arguments.out / f"{size}-{seed}", arguments.run
    PRESETS[size] = SIZES[size]

    def settings(name):
        return settings_of(stages[name], run, seed)

    def score(folder):
        return score_model(folder, {"countdown": recipe.score.tasks["countdown"]}, runtime)

    base = replace(settings("small-base"), model=size)
    result_of(out / "base.json", lambda: sft(base, runtime, out / "base", quiet=True))
    start = str(out / "base" / "model")
    policy = replace(settings("zero"), model=start, steps=arguments.rl_steps, eval_every=10**9)
    rl_report = result_of(out / "rl.json", lambda: grpo(policy, runtime, out / "rl", quiet=True))
    budget = rl_report["train_flops"]
    config = settings("student")
    shape = PRESETS[size]
    per_token = train_flops_per_token(shape, 128)
    num_answers = config.problems * config.collect.num_generations * arguments.teacher_tokens
    sampling_flops = num_answers * decode_flops_per_token(PRESETS["r1-mini"], 128)
    tokens = max(int((budget - sampling_flops) / per_token), 10_000)
    config = replace(config, student=start, sft={**config.sft, "total_tokens": tokens})
    distill_report = result_of(
        out / "distill.json", lambda: distill(config, runtime, out / "distill", quiet=True)
    )
    folders = {"base": out / "base", "reinforced": out / "rl", "distilled": out / "distill" / "student"}
    scores = {
        name: result_of(out / f"score-{name}.json", lambda folder=folder: score(folder / "model"))
        for name, folder in folders.items()
    }
    return {
        "size": size,
        "seed": seed,
        "parameters": scores["base"]["parameters"],
        "rl_flops": budget,
        "distill_flops": sampling_flops + distill_report["training"]["train_flops"],
        **{name: score["pass_at_1"] for name, score in scores.items()},
        **{f"{name}_greedy": score["greedy"] for name, score in scores.items()},
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/demo"), help="folder of a finished demo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--size", choices=SIZES, action="append", help="default: both")
    parser.add_argument("--rl-steps", type=int, default=130)
    parser.add_argument(
        "--teacher-tokens", type=int, default=65, help="mean length of the teacher's answers in tokens"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/bench-distillation"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runtime = choose("cpu")
    rows = []
    for size in arguments.size or SIZES:
        for seed in range(arguments.seeds):
            rows.append(row := measure(size, seed, arguments, runtime))
            shares = "  ".join(f"{name} {row[name]:.1%}" for name in ("base", "reinforced", "distilled"))
            flops = f"{row['rl_flops']:.2e} and {row['distill_flops']:.2e} FLOPs"
            print(f"{size} ({row['parameters']:,}), seed {seed}: {shares}  ({flops})", flush=True)
    wins = sum(row["distilled"] > row["reinforced"] for row in rows)
    print(f"distillation is better in {wins} of {len(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2))
    return 0 if wins == len(rows) else 3


if __name__ == "__main__":
    sys.exit(main())
