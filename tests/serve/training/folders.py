"""A run's folder as `shoestring rl` leaves it in the middle of its reinforcement."""

import json
from pathlib import Path

CONFIG = """title = "R1 in miniature"
note = "a first try"
tags = ["mini"]
[[stages]]
name = "corpus"
title = "texts"
[stages.corpus]
conversations = 10
[[stages]]
name = "base"
[stages.sft]
total_tokens = 1000
[[stages]]
name = "zero"
[stages.grpo]
steps = 10
[[stages]]
name = "student"
[stages.distill]
teacher = "@zero/model"
[[stages]]
name = "more"
[stages.grpo]
steps = 10
"""


def write_run(folder: Path) -> Path:
    """Write the folder of a run that is in its third stage."""
    files = {
        "config.toml": CONFIG,
        "process.json": json.dumps({"pid": 1, "until": "student"}),
        "corpus/stage.json": json.dumps({"name": "corpus", "seconds": 2.5}),
        "base/stage.json": json.dumps({"name": "base", "pass_at_1": 0.25, "maj_at_8": None, "seconds": 9}),
        "base/metrics.jsonl": "".join(
            json.dumps({"step": step, "tokens": 100 * step, "tokens_per_s": 50.0, "loss": 3 / step}) + "\n"
            for step in range(1, 11)
        ),
        "zero/config.toml": "steps = 10\n",
        "zero/metrics.jsonl": "".join(
            json.dumps({"step": step, "accuracy": step / 10, "sample_s": 2.0, "update_s": 1.0}) + "\n"
            for step in range(1, 5)
        ),
        "zero/samples.jsonl": "".join(
            json.dumps({"step": s, "question": "make 24", "text": "8*3", "parts": {"accuracy": s // 2}})
            + "\n"
            for s in range(1, 5)
        ),
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder
