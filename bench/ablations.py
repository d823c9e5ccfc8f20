"""Ablations of load balancing and multi-token prediction, with equal numbers of tokens.

    python bench/ablations.py [--json FILE] [--tokens 300000] [--seeds 2]

Trains the model of recipes/python.toml on the standard library and prints for each variant the held-out bits
per byte (mean over seeds) and the maximal violation of balance (load of the busiest expert over the mean,
minus one) early and late in the run. The bias changes by 0.01 per step, ten times as much as in DeepSeek-V3,
because these runs have hundreds of steps, not hundreds of thousands.
"""

import argparse
import json
import statistics
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

from shoestring.config import load
from shoestring.device import choose
from shoestring.evals.perplexity import heldout_bits_per_byte
from shoestring.model.presets import PRESETS
from shoestring.train.pretrain import pretrain
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.report.metrics import read

RECIPE = Path(__file__).parents[1] / "recipes" / "python.toml"
VARIANTS = {  # name: (bias speed, weight of the sequence balance loss, weight of the MTP loss, MTP modules)
    "bias (auxiliary-loss-free)": (0.01, 0.0, 0.3, 1),
    "sequence auxiliary loss": (0.0, 0.01, 0.3, 1),
    "no balancing": (0.0, 0.0, 0.3, 1),
    "bias, without MTP": (0.01, 0.0, 0.0, 0),
}


def recipe(variant, tokens, seed):
    speed, alpha, mtp, modules = VARIANTS[variant]
    base = load(PretrainConfig, RECIPE, [f"seed={seed}"])
    schedule = replace(base.schedule, bias_speed=speed, mtp_weight=mtp, mtp_weight_late=mtp / 3)
    PRESETS[f"ablation-{modules}"] = replace(PRESETS[base.model], num_nextn_predict_layers=modules)
    return replace(
        base,
        model=f"ablation-{modules}",
        total_tokens=tokens,
        eval_every=1 << 30,
        save_every=1 << 30,
        balance_alpha=alpha,
        schedule=schedule,
    )


def measure(variant, tokens, seed):
    """Held-out bits per byte, and the violation in the second and the last tenth of the run."""
    config = recipe(variant, tokens, seed)
    score = partial(heldout_bits_per_byte, seq_len=config.seq_len, max_tokens=config.eval_tokens)
    with tempfile.TemporaryDirectory() as folder:
        report = pretrain(
            config,
            choose("cpu"),
            Path(folder),
            quiet=True,
            on_eval=lambda model, dataset: score(model, dataset).bits_per_byte,
        )
        violations = [row["max_violation"] for row in read(Path(folder) / "metrics.jsonl")]
    tenth = max(1, len(violations) // 10)
    early, late = statistics.mean(violations[tenth : 2 * tenth]), statistics.mean(violations[-tenth:])
    return report["heldout_bits_per_byte"], early, late


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    rows = []
    print(f"{'variant':<28} {'bits/byte':>9}  {'per seed':<18} {'violation: early':>16} {'late':>6}")
    for variant in VARIANTS:
        runs = [measure(variant, arguments.tokens, seed) for seed in range(arguments.seeds)]
        scores = [run[0] for run in runs]
        early, late = (statistics.mean(run[i] for run in runs) for i in (1, 2))
        rows.append({"variant": variant, "bits_per_byte": scores, "early": early, "late": late})
        per_seed = " ".join(f"{score:.4f}" for score in scores)
        print(
            f"{variant:<28} {statistics.mean(scores):9.4f}  {per_seed:<18} {early:16.3f} {late:6.3f}",
            flush=True,
        )
    by_name = {row["variant"]: row for row in rows}
    bias, auxiliary = by_name["bias (auxiliary-loss-free)"], by_name["sequence auxiliary loss"]
    without = by_name["bias, without MTP"]
    difference = statistics.mean(bias["bits_per_byte"]) - statistics.mean(auxiliary["bits_per_byte"])
    mtp = statistics.mean(bias["bits_per_byte"]) - statistics.mean(without["bits_per_byte"])
    print(f"\nbias minus auxiliary loss: {difference:+.4f} bits per byte; with MTP minus without: {mtp:+.4f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if bias["late"] < bias["early"] else 3


if __name__ == "__main__":
    sys.exit(main())
