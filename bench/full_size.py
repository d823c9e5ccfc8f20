"""DeepSeek-V2-Lite at full size, 15.7B parameters: quantization to 4 bits, loading and decoding in 12 GB.

    python bench/full_size.py [--folder runs/full-size] [--json FILE] [--keep]

Writes a checkpoint of the published shape with random weights in bfloat16 (31 GB, shard by shard), quantizes
it, and loads the result twice. Each step runs in a process of its own, of which the peak memory is printed.
At the first load the files may be in the disk cache or not, at the second they are. Time to the first token
includes the start of Python. Needs 41 GB of disk. Exit code 3 when 12 GB or 20 s are exceeded.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from processes import peak_bytes, run_json

MAX_BYTES, MAX_SECONDS = 12e9, 20.0
SHAPE = "deepseek-v2-lite"
BUFFER = 1 << 24
SHARD_TENSORS = 500


def make(folder):
    """Make the bfloat16 checkpoint. Every matrix is a part of one random buffer: only sizes matter here."""
    import torch

    from shoestring.model.hf.config import save_config
    from shoestring.model.hf.names import stored_views
    from shoestring.model.hf.safetensors_file import Entry, write_file
    from shoestring.model.hf.shards import INDEX_NAME
    from shoestring.model.presets import PRESETS
    from shoestring.model.transformer import Transformer

    config = PRESETS[SHAPE]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.device("meta"):
        views = stored_views(Transformer(config))
    buffer = (torch.randn(2 * BUFFER, generator=torch.Generator().manual_seed(0)) * 0.02).bfloat16()

    def chunks(names, entries):
        for index, (name, entry) in enumerate(zip(names, entries, strict=True)):
            remaining, first = entry.num_bytes // 2, index * 7919 % BUFFER
            source = torch.ones(2 * BUFFER, dtype=torch.bfloat16) if "norm" in name else buffer
            while remaining:
                count = min(remaining, BUFFER)
                yield source[first : first + count].view(torch.uint8).numpy().data
                remaining -= count

    names = list(views)
    weight_map = {}
    for shard in range(0, len(names), SHARD_TENSORS):
        part = names[shard : shard + SHARD_TENSORS]
        entries = [Entry(name=name, dtype="BF16", shape=tuple(views[name].shape)) for name in part]
        file = f"model-{shard // SHARD_TENSORS + 1:05d}.safetensors"
        write_file(folder / file, entries, chunks(part, entries))
        weight_map |= dict.fromkeys(part, file)
        print(f"wrote {file}, {shard + len(part)} of {len(names)} tensors", flush=True)
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    save_config(config, folder, dtype="bfloat16")


def quantize(folder):
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import quantize_checkpoint

    begin = time.monotonic()
    quantize_checkpoint(Checkpoint.open(folder / "bf16"), folder / "int4", "int4")
    return {"stage": "quantize", "seconds": time.monotonic() - begin, "peak_memory_bytes": peak_bytes()}


def decode(folder, start):
    """Load the model, then generate a first token and 16 more."""
    from shoestring.engine.engine import Engine, EngineSettings
    from shoestring.engine.request import Request, SamplingParams
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import load_for_inference

    model = load_for_inference(Checkpoint.open(folder / "int4"))
    load_s = time.time() - start
    engine = Engine(model, None, EngineSettings(max_num_seqs=4, max_model_len=4096))
    params = SamplingParams(temperature=0, max_tokens=17, ignore_eos=True)
    engine.add_request(Request(request_id="0", prompt_token_ids=range(100, 132), sampling_params=params))
    engine.step()
    first_token_s = time.time() - start
    begin = time.monotonic()
    while engine.has_unfinished():
        engine.step()
    return {
        "stage": "decode",
        "opened_s": load_s,
        "first_token_s": first_token_s,
        "tokens_per_s": 16 / (time.monotonic() - begin),
        "peak_memory_bytes": peak_bytes(),
    }


def child(folder, stage):
    options = ["--folder", str(folder), "--child", stage, "--start", str(time.time())]
    row = run_json([sys.executable, __file__, *options])
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/full-size"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints")
    parser.add_argument("--child", choices=("quantize", "decode"), help=argparse.SUPPRESS)
    parser.add_argument("--start", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.child:
        row = quantize(folder) if arguments.child == "quantize" else decode(folder, arguments.start)
        print(json.dumps(row))
        return 0
    rows = []
    if not (folder / "int4" / "config.json").exists():
        if not (folder / "bf16" / "config.json").exists():
            make(folder / "bf16")
        rows.append(child(folder, "quantize"))
        if not arguments.keep:
            shutil.rmtree(folder / "bf16")
    rows += [child(folder, "decode"), child(folder, "decode")]
    is_met = (
        all(row["peak_memory_bytes"] <= MAX_BYTES for row in rows)
        and rows[-1]["first_token_s"] <= MAX_SECONDS
    )
    print("met" if is_met else "MISSED")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if is_met else 3


if __name__ == "__main__":
    sys.exit(main())
