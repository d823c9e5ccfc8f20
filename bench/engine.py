"""Speed of the engine compared with llama.cpp and transformers: prompt, one stream, sixteen streams.

    python bench/engine.py [--json FILE] [--folder DIR] [--rounds 3] [--only ours,llama.cpp,transformers]

Makes (once, in --folder) a checkpoint with the shape of DeepSeek-V2-Lite, 6 layers and 3.15B random weights
in bfloat16, exports it to GGUF for llama.cpp, and quantizes it for this engine. Each measurement runs in a
process of its own, one after the other; a figure is the best of `rounds`. Prompts are random ids; decoding
is greedy. Needs 20 GB of disk, 14 GB of memory, and `pip install llama-cpp-python transformers` for the
other engines. Exit code 3 when a target is missed.
"""

import argparse
import inspect
import json
import sys
import time
from pathlib import Path

from processes import peak_bytes, run_json

PROMPT, START, STREAMS, CONTEXT = 512, 16, 16, 1024
"""Tokens of the long prompt, prompt tokens of a decoding stream, streams at a time, longest context."""
ENGINES = {
    "transformers": ("f32",),
    "llama.cpp": ("q8_0", "q4_0"),
    "ours": ("int8", "int4"),
}
PAIRS = {"int8": "q8_0", "int4": "q4_0"}
TARGETS = {"prompt": 4.0, "stream1": 1.3, "stream16": 2.0}


def config():
    """Shape of V2-Lite with 6 layers, q_lora_rank 1536 and a vocabulary of 32,000."""
    from dataclasses import replace

    from shoestring.model.presets import PRESETS

    lite = PRESETS["deepseek-v2-lite"]
    attention = replace(lite.attention, q_lora_rank=1536)
    return replace(
        lite, num_hidden_layers=6, vocab_size=32000, attention=attention, bos_token_id=0, eos_token_id=1
    )


def prepare(folder):
    """Make the checkpoint, its GGUF files and its quantized forms, those that do not exist yet."""
    import torch

    from shoestring.model.gguf.exporter import export_gguf
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import save_model
    from shoestring.model.packed.quantize import quantize_checkpoint
    from shoestring.model.transformer import Transformer

    source = folder / "hf"
    if not (source / "config.json").exists():
        print("making the checkpoint", flush=True)
        with torch.device("meta"):
            model = Transformer(config()).bfloat16()
        model = model.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0, 0.02, generator=generator)
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        save_model(model, source, dtype=torch.bfloat16)
        del model
    for kind in ENGINES["llama.cpp"]:
        if not (folder / f"{kind}.gguf").exists():
            print("exporting to", kind, flush=True)
            export_gguf(Checkpoint.open(source), folder / f"{kind}.gguf", kind)
    for kind in ENGINES["ours"]:
        if not (folder / kind / "config.json").exists():
            print("quantizing to", kind, flush=True)
            quantize_checkpoint(Checkpoint.open(source), folder / kind, kind)


def prompts(count, length):
    import random

    return [[random.Random(seed).randrange(2, 32000) for _ in range(length)] for seed in range(count)]


class Ours:
    def __init__(self, folder, streams=STREAMS, quantization=None, context=CONTEXT, **settings):
        from shoestring.device import choose
        from shoestring.engine.load import load_engine
        from shoestring.engine.settings import EngineSettings
        from shoestring.model.hf.checkpoint import Checkpoint

        settings = EngineSettings(
            max_num_seqs=streams,
            max_num_batched_tokens=PROMPT,
            max_model_len=context,
            enable_prefix_caching=False,
            speculation="off",
            **settings,
        )
        self.engine = load_engine(
            Checkpoint.open(folder), choose("cpu"), quantization=quantization, settings=settings
        )
        self.count = 0

    def run(self, batch, steps):
        """Seconds of each step: the step of the prompts, then one per token of every stream."""
        from shoestring.engine.request import Request, SamplingParams

        params = SamplingParams(temperature=0, max_tokens=steps + 1, ignore_eos=True)
        for ids in batch:
            self.count += 1
            request = Request(request_id=str(self.count), prompt_token_ids=ids, sampling_params=params)
            self.engine.add_request(request)
        times = []
        while self.engine.has_unfinished():
            begin = time.perf_counter()
            self.engine.step()
            times.append(time.perf_counter() - begin)
        return times


class LlamaCpp:
    def __init__(self, path, streams=STREAMS, context=CONTEXT, batch=PROMPT, flash=None, repack=True):
        import os

        import llama_cpp as library

        self.library = library
        self.silent = library.llama_log_callback(
            lambda *_: None
        )  # an attribute, because the library calls it at any time
        library.llama_log_set(self.silent, None)
        library.llama_backend_init()
        params = library.llama_model_default_params()
        params.use_extra_bufts = repack
        self.model = library.llama_model_load_from_file(str(path).encode(), params)
        self.vocab_size = library.llama_vocab_n_tokens(library.llama_model_get_vocab(self.model))
        params = library.llama_context_default_params()
        params.n_ctx, params.n_seq_max = context * streams, streams
        params.n_batch, params.n_ubatch = batch, PROMPT
        if flash is not None:
            kind = "ENABLED" if flash else "DISABLED"
            params.flash_attn_type = getattr(library, f"LLAMA_FLASH_ATTN_TYPE_{kind}")
        params.n_threads = params.n_threads_batch = os.cpu_count()
        self.context = library.llama_init_from_model(self.model, params)
        self.batch = library.llama_batch_init(batch, 0, streams)

    def decode(self, rows):
        """Run rows (token, position, sequence, needs_logits); returns the best token of each with logits."""
        import numpy as np

        batch = self.batch
        batch.n_tokens = len(rows)
        for i, (token, position, sequence, needs_logits) in enumerate(rows):
            batch.token[i], batch.pos[i], batch.n_seq_id[i] = token, position, 1
            batch.seq_id[i][0], batch.logits[i] = sequence, needs_logits
        assert self.library.llama_decode(self.context, batch) == 0
        tokens = []
        for i, (*_, needs_logits) in enumerate(rows):
            if needs_logits:
                logits = self.library.llama_get_logits_ith(self.context, i)
                tokens.append(int(np.ctypeslib.as_array(logits, (self.vocab_size,)).argmax()))
        return tokens

    def run(self, batch, steps):
        library = self.library
        library.llama_memory_clear(library.llama_get_memory(self.context), True)
        rows = [(t, p, s, p == len(ids) - 1) for s, ids in enumerate(batch) for p, t in enumerate(ids)]
        begin = time.perf_counter()
        tokens = self.decode(rows)
        times = [time.perf_counter() - begin]
        for step in range(steps):
            begin = time.perf_counter()
            tokens = self.decode([(t, len(batch[0]) + step, s, True) for s, t in enumerate(tokens)])
            times.append(time.perf_counter() - begin)
        return times


def can_repack():
    """Return whether llama.cpp may rearrange the weights of MLA: on a CPU with AMX it then ends at an assert.

    Seen with llama-cpp-python 0.3.36 (ggml-backend.cpp, cur_backend_id) on this checkpoint.
    """
    cpu = Path("/proc/cpuinfo")
    return not cpu.exists() or "amx_int8" not in cpu.read_text()


class Transformers:
    def __init__(self, folder):
        import torch
        from transformers import AutoModelForCausalLM

        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        names = inspect.signature(self.model.forward).parameters
        self.cache = "cache" if "cache" in names else "past_key_values"  # its name since 5.24, and before

    def run(self, batch, steps):
        import torch

        times, past = [], None
        ids = torch.tensor(batch)
        with torch.inference_mode():
            for _ in range(steps + 1):
                begin = time.perf_counter()
                out = self.model(ids, use_cache=True, logits_to_keep=1, **{self.cache: past})
                past, ids = out[self.cache], out.logits[:, -1:].argmax(-1)
                times.append(time.perf_counter() - begin)
        return times


def open_model(folder, engine, kind):
    if engine == "ours":
        return Ours(folder / kind)
    if engine == "llama.cpp":
        return LlamaCpp(folder / f"{kind}.gguf", repack=can_repack())
    return Transformers(folder / "hf")


def measure(model, engine, kind, steps, numbers_of_streams):
    """Figures of one engine in this process."""
    model.run(prompts(1, START), 2)
    decode = {}
    for streams in numbers_of_streams:
        times = sorted(model.run(prompts(streams, START), steps)[1:])
        decode[streams] = streams / times[len(times) // 2]
    return {
        "engine": engine,
        "weights": kind,
        "prompt_tokens_per_s": PROMPT / model.run(prompts(1, PROMPT), 0)[0],
        "stream1_tokens_per_s": decode[1],
        "stream16_tokens_per_s": decode.get(STREAMS),
        "peak_memory_bytes": peak_bytes(),
    }


def limits():
    """Limits of the machine, as a row."""
    from shoestring.device import choose
    from shoestring.engine.measure import measure_limits

    best = measure_limits(choose("cpu"))
    return {
        "engine": "machine",
        "weights": "limit",
        "read_bytes_per_s": best.read_bytes_per_s,
        "float32_flops_per_s": best.float_flops_per_s,
        "int8_ops_per_s": best.int8_ops_per_s,
    }


def child(folder, engine, kind, steps):
    options = ["--folder", str(folder), "--child", engine, kind, "--steps", str(steps)]
    return run_json([sys.executable, __file__, *options])


def best_of(rows):
    """Combine several runs: the best rates, the largest memory."""
    best = dict(rows[0])
    for name in best:
        values = [row[name] for row in rows if row[name] is not None]
        if name.endswith("_per_s") or name == "peak_memory_bytes":
            best[name] = max(values, default=None)
    return best


def compare(rows):
    """Comparisons with targets: (name, ratio, target)."""
    table = {(row["engine"], row["weights"]): row for row in rows}
    theirs = {kind: table.get(("llama.cpp", kind)) for kind in ENGINES["llama.cpp"]}
    ours = {kind: table.get(("ours", kind)) for kind in ENGINES["ours"]}
    comparisons = []
    if all(theirs.values()) and all(ours.values()):
        prompt = [max(row["prompt_tokens_per_s"] for row in side.values()) for side in (ours, theirs)]
        comparisons.append(
            ("prompt of 512, ours over the better llama.cpp", prompt[0] / prompt[1], TARGETS["prompt"])
        )
    for kind, other in PAIRS.items():
        for name in ("stream1", "stream16"):
            if ours[kind] and theirs[other]:
                key = f"{name}_tokens_per_s"
                comparisons.append(
                    (f"{name}, {kind} over {other}", ours[kind][key] / theirs[other][key], TARGETS[name])
                )
    return comparisons


def show(rows, comparisons):
    print(
        f"\n{'engine':14}{'weights':10}{'prompt/s':>10}{'1 stream/s':>12}{'16 streams/s':>14}"
        f"{'memory GB':>11}"
    )
    for row in rows:
        if row["engine"] == "machine":
            rates = [row[name] or 0 for name in ("read_bytes_per_s", "float32_flops_per_s", "int8_ops_per_s")]
            print(
                "machine: memory {:.1f} GB/s, float32 {:.0f} GFLOP/s, oneDNN int8 {:.0f} GOP/s".format(
                    *(r / 1e9 for r in rates)
                )
            )
            continue
        sixteen = row["stream16_tokens_per_s"]
        print(
            f"{row['engine']:14}{row['weights']:10}{row['prompt_tokens_per_s']:10.1f}{row['stream1_tokens_per_s']:12.1f}"
            f"{sixteen if sixteen is None else round(sixteen, 1)!s:>14}{row['peak_memory_bytes'] / 1e9:11.1f}"
        )
    for name, ratio, target in comparisons:
        print(f"{name}: {ratio:.2f}x, target {target}x: {'met' if ratio >= target else 'MISSED'}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-engine"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--only", default=",".join(ENGINES))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        model = open_model(arguments.folder, *arguments.child)
        streams = (1,) if arguments.child[0] == "transformers" else (1, STREAMS)
        print(json.dumps(measure(model, *arguments.child, arguments.steps, streams)))
        return 0
    prepare(arguments.folder)
    runs = {(engine, kind): [] for engine in arguments.only.split(",") for kind in ENGINES[engine]}
    for _ in range(arguments.rounds):
        for (engine, kind), results in runs.items():
            if engine == "transformers" and results:
                continue  # one run takes a minute and is much slower than the others
            results.append(child(arguments.folder, engine, kind, arguments.steps))
            print(json.dumps(results[-1]), flush=True)
    rows = [best_of(results) for results in runs.values()] + [limits()]
    comparisons = compare(rows)
    show(rows, comparisons)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0 if all(ratio >= target for _, ratio, target in comparisons) else 3


if __name__ == "__main__":
    sys.exit(main())
