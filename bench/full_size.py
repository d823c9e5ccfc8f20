"""DeepSeek-V2-Lite at its full size, 15.7B parameters, at 4 bits within 12 GB: made, packed, opened, run.

    python bench/full_size.py [--folder runs/full-size] [--json FILE] [--keep]

Writes a checkpoint of the published shape with random weights in bfloat16 (31 GB, shard by shard), runs
`quantize_checkpoint` on it, and opens the result twice, each in a process of its own, whose peak memory is
read: cold or warm as the disk's cache happens to be, then warm. Time to the first token counts from the
start of the process, Python's own start included. Needs 41 GB of disk. Exit code 3 when 12 GB or 20 s are
exceeded.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

MAX_BYTES, MAX_SECONDS = 12e9, 20.0
SHAPE = "deepseek-v2-lite"
BUFFER = 1 << 24
SHARD_TENSORS = 500


def make(folder):
    """The bfloat16 checkpoint. Every matrix is a window of one random buffer: only sizes matter here."""
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
            left, first = entry.num_bytes // 2, index * 7919 % BUFFER
            source = torch.ones(2 * BUFFER, dtype=torch.bfloat16) if "norm" in name else buffer
            while left:
                count = min(left, BUFFER)
                yield source[first : first + count].view(torch.uint8).numpy().data
                left -= count

    names = list(views)
    weight_map = {}
    for shard in range(0, len(names), SHARD_TENSORS):
        part = names[shard : shard + SHARD_TENSORS]
        entries = [Entry(name=name, dtype="BF16", shape=tuple(views[name].shape)) for name in part]
        file = f"model-{shard // SHARD_TENSORS + 1:05d}.safetensors"
        write_file(folder / file, entries, chunks(part, entries))
        weight_map |= dict.fromkeys(part, file)
        print(f"written {file}, {shard + len(part)} of {len(names)} tensors", flush=True)
    (folder / INDEX_NAME).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    save_config(config, folder, dtype="bfloat16")


def peak_bytes():
    """Of this process alone: getrusage counts what the one before exec had, too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def quantize(folder):
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import quantize_checkpoint

    begin = time.monotonic()
    quantize_checkpoint(Checkpoint.open(folder / "bf16"), folder / "int4", "int4")
    return {"stage": "quantize", "seconds": time.monotonic() - begin, "peak_memory_bytes": peak_bytes()}


def decode(folder, started):
    """First token, then 16 more."""
    from shoestring.engine.engine import Engine, EngineSettings
    from shoestring.engine.request import Request, SamplingParams
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.packed.quantize import load_for_inference

    model = load_for_inference(Checkpoint.open(folder / "int4"))
    opened = time.time() - started
    engine = Engine(model, None, EngineSettings(max_num_seqs=4, max_model_len=4096))
    params = SamplingParams(temperature=0, max_tokens=17, ignore_eos=True)
    engine.add_request(Request(request_id="0", prompt_token_ids=range(100, 132), sampling_params=params))
    engine.step()
    first = time.time() - started
    begin = time.monotonic()
    while engine.has_unfinished():
        engine.step()
    return {
        "stage": "decode",
        "opened_s": opened,
        "first_token_s": first,
        "tokens_per_s": 16 / (time.monotonic() - begin),
        "peak_memory_bytes": peak_bytes(),
    }


def child(folder, stage):
    command = [
        sys.executable,
        __file__,
        "--folder",
        str(folder),
        "--child",
        stage,
        "--started",
        str(time.time()),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    row = json.loads(done.stdout.decode().splitlines()[-1])
    print(json.dumps(row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/full-size"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--keep", action="store_true", help="keep the checkpoints")
    parser.add_argument("--child", choices=("quantize", "decode"))
    parser.add_argument("--started", type=float)
    arguments = parser.parse_args()
    folder = arguments.folder
    if arguments.child:
        row = quantize(folder) if arguments.child == "quantize" else decode(folder, arguments.started)
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
    met = (
        all(row["peak_memory_bytes"] <= MAX_BYTES for row in rows)
        and rows[-1]["first_token_s"] <= MAX_SECONDS
    )
    print("met" if met else "MISSED")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if met else 3


if __name__ == "__main__":
    sys.exit(main())
