"""Long prompts beside llama.cpp and transformers, and what one does to the streams that run beside it.

    python bench/long_prompts.py [--json FILE] [--folder DIR] [--rounds 1] [--lengths 4096,16384]
                                 [--only ours,llama.cpp,transformers]

The checkpoint is that of bench/engine.py (DeepSeek-V2-Lite's shape, 6 layers, made once in --folder), here
with 4-bit weights, llama.cpp with Q4_0 and its better setting of flash attention at 4,096 tokens,
transformers in float32 and only at 4,096. Prompts are random ids; each measurement runs in a process of its
own and the best of `rounds` counts. Then 8 streams decode, and a prompt of the longest length comes in as in
the service: the time between two tokens of a stream, its median before, and its 99th percentile meanwhile.
Beside it stands the first step of llama.cpp as llama-server makes it: the streams' tokens with 2,048 of the
prompt. FILE is written after each measurement, and what it holds is not measured again. Exit code 3 when a
target is missed.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

from engine import START, LlamaCpp, Ours, Transformers, can_repack, prepare, prompts
from processes import peak_bytes, run_json

STREAMS, ALONE, MOST_TOKENS = 8, 24, 4000
"""Streams, steps before the prompt comes, tokens of a stream at most."""
SERVER_BATCH = 2048
TARGETS = {4096: 3.0, 16384: 2.0}
LONGEST_PAUSE = 3.0
WAYS = {
    "ours": ("int4",),
    "llama.cpp": ("q4_0 plain", "q4_0 flash"),
    "transformers": ("f32",),
}


def open_llama(folder, way, streams, context, batch):
    kind, attention = way.split()
    options = {"flash": attention == "flash", "repack": can_repack()}
    return LlamaCpp(folder / f"{kind}.gguf", streams, context=context, batch=batch, **options)


def measure_prompt(folder, engine, way, length):
    """Seconds of one prompt of this length until its first token."""
    context = length + 64
    if engine == "ours":
        model = Ours(folder / way, streams=1, context=context)
    elif engine == "llama.cpp":
        model = open_llama(folder, way, 1, context, context)
    else:
        model = Transformers(folder / "hf")
    model.run(prompts(1, START), 2)
    seconds = sum(model.run(prompts(1, length), 0))
    row = {"engine": engine, "weights": way, "prompt_tokens": length, "seconds": seconds}
    return row | {"prompt_tokens_per_s": length / seconds, "peak_memory_bytes": peak_bytes()}


def measure_pauses(folder, way, length):
    """Times between the tokens of running streams, before and while a long prompt comes in."""
    from shoestring.engine.request import Request, SamplingParams
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.memory import page_bytes, pages_for
    from shoestring.serve.models.opening import PROMPT_SHARE

    config = Checkpoint.open(folder / way).config
    pages = pages_for(length + 64) + STREAMS * pages_for(START + MOST_TOKENS)
    cache = pages * page_bytes(config, config.num_hidden_layers, 4)
    model = Ours(
        folder / way,
        streams=STREAMS + 1,
        context=length + 64,
        kv_cache_memory_bytes=cache,
        prompt_share=PROMPT_SHARE,
    )
    engine = model.engine
    model.run(prompts(1, START), 2)

    def add(name, ids, tokens):
        params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        engine.add_request(Request(request_id=name, prompt_token_ids=ids, sampling_params=params))

    def step():
        begin = time.perf_counter()
        outputs = engine.step()
        return time.perf_counter() - begin, {output.request_id for output in outputs}

    for number, ids in enumerate(prompts(STREAMS, START)):
        add(f"stream {number}", ids, MOST_TOKENS)
    step()
    alone_s = [step()[0] for _ in range(ALONE)]
    add("prompt", prompts(1, length)[0], 1)
    beside_s, changed = [], set()
    while "prompt" not in changed:
        seconds, changed = step()
        beside_s.append(seconds)
        assert sum(name.startswith("stream") for name in changed) == STREAMS, "a stream waited or ended"
    median_s, p99_s = (
        statistics.median(alone_s),
        statistics.quantiles(beside_s, n=100, method="inclusive")[98],
    )
    return {
        "engine": "ours",
        "weights": way,
        "prompt_tokens": length,
        "median_alone_s": median_s,
        "median_beside_s": statistics.median(beside_s),
        "p99_beside_s": p99_s,
        "longest_s": max(beside_s),
        "prompt_s": sum(beside_s),
        "pause": p99_s / median_s,
    }


def measure_server(folder, way, length):
    """The pause of 8 streams in llama.cpp when one batch takes their tokens and 2,048 of a prompt."""
    streams = STREAMS + 1
    model = open_llama(folder, way, streams, 4096, SERVER_BATCH)
    alone_s = model.run(prompts(STREAMS, START), ALONE)[1:]
    rows = [(2, START + ALONE, s, True) for s in range(STREAMS)]
    ids = prompts(1, length)[0][: SERVER_BATCH - STREAMS]
    rows += [(token, position, STREAMS, False) for position, token in enumerate(ids)]
    begin = time.perf_counter()
    model.decode(rows)
    seconds, median_s = time.perf_counter() - begin, statistics.median(alone_s)
    row = {"engine": "llama.cpp", "weights": way, "prompt_tokens": length, "median_alone_s": median_s}
    return row | {"first_pause_s": seconds, "pause": seconds / median_s}


MEASUREMENTS = {"prompt": measure_prompt, "pauses": measure_pauses, "server": measure_server}


class Record:
    """Rows measured so far, each in a process of its own; kept in a file, if there is one, to go on from."""

    def __init__(self, folder, path):
        self.folder, self.path = folder, path
        self.rows = json.loads(path.read_text()) if path is not None and path.exists() else []

    def row(self, name, *values, number=0):
        """The row of a measurement, from the file or made now; `number` tells rounds apart."""
        part = " ".join(map(str, (name, *values, number)))
        known = [row for row in self.rows if row["part"] == part]
        if known:
            return known[0]
        options = ["--folder", str(self.folder), "--child", name, *map(str, values)]
        begin = time.perf_counter()
        row = {"part": part} | run_json([sys.executable, __file__, *options])
        row["took_s"] = time.perf_counter() - begin  # loading included
        self.rows.append(row)
        if self.path is not None:
            self.path.write_text(json.dumps(self.rows, indent=2) + "\n")
        show(row)
        return row

    def fastest(self, engine, way, length, rounds):
        rows = [self.row("prompt", engine, way, length, number=number) for number in range(rounds)]
        return min(rows, key=lambda row: row["seconds"])


def measure_all(record, lengths, rounds, engines):
    """All rows: prompts from the shortest, then pauses. The slower setting of llama.cpp runs only once."""
    ways = {engine: WAYS[engine] for engine in engines}
    for length in lengths:
        for engine in engines:
            if engine == "transformers" and length != lengths[0]:
                continue
            found = [record.fastest(engine, way, length, rounds) for way in ways[engine]]
            ways[engine] = (min(found, key=lambda row: row["seconds"])["weights"],)
    if "ours" in engines:
        record.row("pauses", ways["ours"][0], lengths[-1])
    if "llama.cpp" in engines:
        record.row("server", ways["llama.cpp"][0], lengths[-1])


def show(row):
    """Print one row as text."""
    name = f"{row['engine']:13}{row['weights']:12}{row['prompt_tokens']:>7,} tokens: "
    if "seconds" in row:
        what = "{prompt_tokens_per_s:.1f} tokens/s, {seconds:.1f} s".format(**row)
    elif "p99_beside_s" in row:
        what = (
            "median alone {median_alone_s:.3f} s, beside the prompt {median_beside_s:.3f} s, 99th percentile "
            "{p99_beside_s:.3f} s, longest {longest_s:.3f} s; the prompt took {prompt_s:.0f} s".format(**row)
        )
    else:
        what = "median alone {median_alone_s:.3f} s, first pause {first_pause_s:.3f} s".format(**row)
    print(f"{name}{what} (measured in {row['took_s']:.0f} s)", flush=True)


def compare(rows):
    """Comparisons: (name, figure, its target, met or not)."""
    result = []
    best = {}
    for row in rows:
        if "prompt_tokens_per_s" in row:
            key = row["engine"], row["prompt_tokens"]
            best[key] = max(best.get(key, 0.0), row["prompt_tokens_per_s"])
    for (engine, length), rate in sorted(best.items()):
        if engine == "ours" and ("llama.cpp", length) in best:
            ratio, target = rate / best["llama.cpp", length], TARGETS.get(length, 0.0)
            result.append((f"prompt of {length:,}, ours over llama.cpp", ratio, target, ratio >= target))
    for row in rows:
        if "p99_beside_s" in row:
            name = f"p99 between tokens beside a prompt of {row['prompt_tokens']:,}, over the median alone"
            result.append((name, row["pause"], LONGEST_PAUSE, row["pause"] <= LONGEST_PAUSE))
    return result


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-engine"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--lengths", default=",".join(map(str, TARGETS)))
    parser.add_argument("--only", default=",".join(WAYS))
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, *values, length = arguments.child
        print(json.dumps(MEASUREMENTS[name](arguments.folder, *values, int(length))))
        return 0
    prepare(arguments.folder)
    lengths = sorted(map(int, arguments.lengths.split(",")))
    record = Record(arguments.folder, arguments.json)
    for row in record.rows:
        show(row)
    measure_all(record, lengths, arguments.rounds, arguments.only.split(","))
    comparisons = compare(record.rows)
    for name, figure, target, is_met in comparisons:
        print(f"{name}: {figure:.2f}, target {target}: {'met' if is_met else 'MISSED'}")
    return 0 if all(is_met for *_, is_met in comparisons) else 3


if __name__ == "__main__":
    sys.exit(main())
