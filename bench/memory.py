"""Predicted memory beside what this machine measures: ten configurations of training, ten of serving.

    python bench/memory.py [--json FILE] [--only training|serving]

Every configuration runs in a process of its own, with random weights, and its largest resident memory is
compared with what `shoestring plan` predicts (cost/memory.py). Exit code 3 if any is off by more than 10%.
"""

import argparse
import json
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

LIMIT = 0.10
CHILD_S = 300
PROMPT = 1024
"""Tokens of a request, of which as many are sent as fill the cache."""
TRAINING: list[dict[str, Any]] = [
    {"shape": "demo", "rows": 4, "length": 512},
    {"shape": "demo", "rows": 16, "length": 512, "optimizer": "muon"},
    {"shape": "v3-12m", "rows": 4, "length": 512, "optimizer": "muon"},
    {"shape": "v3-12m", "rows": 8, "length": 512},
    {"shape": "v3-12m", "rows": 8, "length": 512, "checkpointing": True},
    {"shape": "dense", "rows": 2, "length": 512},
    {"shape": "dense", "rows": 4, "length": 512, "checkpointing": True},
    {"shape": "wide", "rows": 1, "length": 512},
    {"shape": "experts", "rows": 2, "length": 512, "optimizer": "muon"},
    {"shape": "vocabulary", "rows": 4, "length": 256},
]
SERVING: list[dict[str, Any]] = [
    {"shape": "v3-12m", "cache_tokens": 4096},
    {"shape": "dense", "cache_tokens": 4096},
    {"shape": "dense", "cache_tokens": 12288},
    {"shape": "dense", "cache_tokens": 4096, "quantization": "int8"},
    {"shape": "wide", "cache_tokens": 2048},
    {"shape": "wide", "cache_tokens": 2048, "quantization": "int8"},
    {"shape": "wide", "cache_tokens": 2048, "quantization": "int4"},
    {"shape": "experts", "cache_tokens": 8192},
    {"shape": "experts", "cache_tokens": 8192, "quantization": "int8"},
    {"shape": "vocabulary", "cache_tokens": 4096},
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", choices=("training", "serving"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(child(json.loads(arguments.child))))
        return 0
    cases = [{"kind": "training", **case} for case in TRAINING] + [{"kind": "serving", **c} for c in SERVING]
    rows = []
    for case in cases:
        if arguments.only not in (None, case["kind"]):
            continue
        rows.append(row := measured(case))
        what = " ".join(str(value) for value in row["case"].values())
        sizes = f"predicted {row['predicted'] / 1e6:7.0f} MB, measured {row['measured'] / 1e6:7.0f} MB"
        print(f"{what:<48} {sizes}, {row['error']:+.1%}", flush=True)
    worst = max(abs(row["error"]) for row in rows)
    print(f"worst {worst:.1%} of {len(rows)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 0 if worst <= LIMIT else 3


def measured(case: dict[str, Any]) -> dict[str, Any]:
    """A case's row: it runs in a child."""
    command = [sys.executable, __file__, "--child", json.dumps(case)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_S, check=False)
    if output.returncode:
        sys.exit(f"{case}: {output.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(output.stdout.splitlines()[-1])
    return {"case": case, **row, "error": row["predicted"] / row["measured"] - 1}


def child(case: dict[str, Any]) -> dict[str, Any]:
    """Run a case here; returns its predicted and its largest resident bytes."""
    from shoestring.model.config import GQAConfig, ModelConfig
    from shoestring.model.presets import PRESETS

    dense = ModelConfig(
        model_type="llama",
        vocab_size=16_384,
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=8,
        num_attention_heads=8,
        attention=GQAConfig(num_key_value_heads=4, head_dim=64),
        max_position_embeddings=32_768,
    )
    moe = PRESETS["v3-12m"].moe
    assert moe is not None
    shapes = {
        "demo": PRESETS["demo"],
        "v3-12m": PRESETS["v3-12m"],
        "dense": dense,
        "wide": replace(dense, hidden_size=1024, intermediate_size=2816, num_hidden_layers=4),
        "experts": replace(
            PRESETS["v3-12m"],
            moe=replace(moe, n_routed_experts=64),
            num_nextn_predict_layers=0,
            max_position_embeddings=32_768,
        ),
        "vocabulary": replace(dense, vocab_size=65_536, hidden_size=256, num_hidden_layers=4),
    }
    predicted = (
        train(shapes[case["shape"]], case)
        if case["kind"] == "training"
        else serve(shapes[case["shape"]], case)
    )
    return {"predicted": predicted, "measured": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def train(config: Any, case: dict[str, Any]) -> int:
    """Two steps of training; returns the predicted bytes."""
    import torch

    from shoestring.cost.memory import training_memory
    from shoestring.model.transformer import Transformer, initialize
    from shoestring.train.losses import MicroBatch
    from shoestring.train.optim import OptimConfig, build_optimizers
    from shoestring.train.step import StepSettings, train_step

    optimizer, is_checkpointing = case.get("optimizer", "adamw"), case.get("checkpointing", False)
    model = initialize(Transformer(config), torch.Generator().manual_seed(0)).train()
    model.gradient_checkpointing = is_checkpointing
    optimizers = build_optimizers(model, OptimConfig(name=optimizer))
    settings = StepSettings(
        lr_share=1.0, mtp_weight=0.3, bias_speed=0.0, balance_alpha=1e-4, max_grad_norm=1.0
    )
    for _ in range(2):
        ids = torch.randint(config.vocab_size, (case["rows"], case["length"] + 1))
        train_step(model, optimizers, [MicroBatch(ids[:, :-1], ids[:, 1:])], settings)
    return training_memory(
        config,
        tokens=case["rows"] * case["length"],
        muon=optimizer == "muon",
        gradient_checkpointing=is_checkpointing,
    ).total


def serve(config: Any, case: dict[str, Any]) -> int:
    """Requests that fill an engine's cache; returns the predicted bytes."""
    import tempfile

    import torch

    from shoestring.cost.memory import serving_memory
    from shoestring.device import choose
    from shoestring.engine.load import load_engine
    from shoestring.engine.request import Request, SamplingParams
    from shoestring.engine.settings import EngineSettings
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.memory import cache_bytes

    quantization = case.get("quantization")
    with tempfile.TemporaryDirectory() as folder:
        write = [sys.executable, "-c", WRITE, folder, json.dumps(case)]
        subprocess.run(write, check=True, cwd=Path(__file__).parent)
        runtime = choose("cpu")
        size = cache_bytes(config, case["cache_tokens"], config.num_hidden_layers, 4)
        settings = EngineSettings(kv_cache_memory_bytes=size, speculation="off")
        engine = load_engine(Checkpoint.open(folder), runtime, quantization=quantization, settings=settings)
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    for number in range(max(1, case["cache_tokens"] // PROMPT)):
        ids = tuple(torch.randint(config.vocab_size, (PROMPT - 32,)).tolist())
        engine.add_request(Request(request_id=str(number), prompt_token_ids=ids, sampling_params=params))
    while engine.has_unfinished():
        engine.step()
    return serving_memory(config, quantization=quantization, cache=size).total


# Writes a model with random weights, in another process: the making of it takes memory too.
WRITE = """
import json, sys
from pathlib import Path
from unittest import mock
import memory, torch
from shoestring.model.hf.folder import save_model
from shoestring.model.transformer import Transformer, initialize
folder, case = sys.argv[1], json.loads(sys.argv[2])
def save(config, case):
    model = initialize(Transformer(config), torch.Generator().manual_seed(0))
    save_model(model, Path(folder))
    return 0
with mock.patch.object(memory, 'serve', save):
    memory.child(case)
"""


if __name__ == "__main__":
    sys.exit(main())
