"""Make the model that comes with the package (shoestring/embedded/mini) from a finished demo.

    python tools/mini.py [runs/demo]

Its R1-Zero in bfloat16, with a card that says how it was made and what it can do, by the demo's own report.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model

MINI = Path(__file__).resolve().parents[1] / "shoestring" / "embedded" / "mini"
MOST_BYTES = 10_000_000
CARD = """The model that comes with shoestring: {millions:.1f} million parameters, trained from random weights
on two CPU cores in about {minutes:.0f} minutes. It was made by `shoestring demo --seed {seed}`
(recipes/r1-mini.toml, stage `zero`) and `tools/mini.py`: a base that read scratch work written by a program,
then reinforced on Countdown alone, whose rewards a program computes.

It makes a number from three others (`make 24 from 3,8,1`), works out short sums rather badly, and says to
everything else that it cannot do that. Held out: {pass_at_1:.0%} of Countdown problems at temperature 1,
{greedy:.0%} greedily. It knows nothing."""


def main() -> int:
    run = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo")
    stages = {stage["name"]: stage for stage in json.loads((run / "report.json").read_text())["stages"]}
    zero = stages["zero"]
    source = run / "zero" / "model"
    recipe = json.loads((run / "zero" / "receipt.json").read_text())["recipe"]
    seconds = sum(stages[name]["seconds"] for name in ("corpus", "base", "zero"))
    lineage = CARD.format(
        millions=zero["parameters"] / 1e6,
        minutes=seconds / 60,
        seed=recipe["seed"],
        pass_at_1=zero["pass_at_1"],
        greedy=zero["greedy"],
    )
    shutil.rmtree(MINI, ignore_errors=True)
    save_model(
        load_model(Checkpoint.open(source)),
        MINI,
        dtype=torch.bfloat16,
        tokenizer_files=source,
        generation={"temperature": 0.3, "max_new_tokens": 300},
        license="mit",
        lineage=lineage,
        name="mini",
    )
    size = sum(path.stat().st_size for path in MINI.iterdir())
    print(f"{MINI}: {size / 1e6:.1f} MB")
    return 0 if size <= MOST_BYTES else 3


if __name__ == "__main__":
    sys.exit(main())
