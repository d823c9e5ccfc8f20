"""Equality of outputs for requests alone and among 63 others: grammars, drafts, aborts, preemption.

    python bench/metamorphic.py [--requests 2000] [--aborts 10000] [--seed 0] [--json FILE]

Uses two tiny random models in float32, one V3-shaped (MLA, experts, an MTP module) and one Qwen2-shaped,
with greedy sampling. Half of the requests have a grammar (JSON schema, regex, choice, Lark, tools), partly
behind thinking; others have stop strings, logprobs, logit_bias, penalties, stop tokens. Tokens, text, finish
and stop reason must be equal, logprobs to 0.001.

Each request runs once alone, without prefix sharing or drafts, and once in an engine whose cache is too
small, among requests that are aborted at random moments. Drafts come from the MTP module, from prompt
lookup, and from an oracle that is right most of the time. Then requests are aborted at random, and all pages
must be free afterwards. Exit code 3 when an output differs, a request fails or a page is lost.
"""

import argparse
import json
import random
import string
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from shoestring.engine.adaptive import Speculation
from shoestring.engine.engine import Engine, EngineSettings
from shoestring.engine.request import CompletionOutput, Request, SamplingParams, StructuredOutputsParams
from shoestring.model.config import GQAConfig, RopeConfig
from shoestring.model.memory import page_bytes, pages_for
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialize
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.special import THINK_END

TOKENIZER = Tokenizer.train([string.printable * 3, '{"name": "ab", "old": true} false {"a": 1}'], 320)
END_OF_THINKING = TOKENIZER.special_id(THINK_END)
V3 = replace(TINY, initializer_range=0.2, vocab_size=TOKENIZER.vocab_size + 5, eos_token_id=TOKENIZER.eos_id)
QWEN = replace(
    V3,
    model_type="qwen2",
    attention=GQAConfig(num_key_value_heads=1, head_dim=16, qkv_bias=True),
    moe=None,
    rope=RopeConfig(),
    tie_word_embeddings=True,
    num_nextn_predict_layers=0,
)
CROWD = 64
MOST_TOKENS = 60
CROWD_PAGES = 120
"""About half of the pages that 64 of these requests need."""
LONGEST_PAGES = pages_for(100 + 60 + MOST_TOKENS)
TOLERANCE = 1e-3
"""For logprobs: the order of sums depends on the size of a batch."""
Outputs = tuple[CompletionOutput, ...]

PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["ab", "cd"]}, "old": {"type": "boolean"}},
    "required": ["name", "old"],
    "additionalProperties": False,
}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "parameters": schema}}
    for name, schema in (("who", PERSON), ("none", {"type": "object", "additionalProperties": False}))
)
GRAMMARS: list[dict] = [
    {"regex": "[a-c]{1,6}"},
    {"regex": r"(ab|cd)*[0-9]+\.?"},
    {"regex": "[ -~]{1,40}"},
    {"choice": ("yes", "yesterday", "no", "é")},
    {"choice": ("a" * 20, "a" * 21, "a" * 22)},
    {"json": PERSON},
    {"json": {"type": "array", "items": {"type": "integer", "maximum": 99}, "maxItems": 9}},
    {"json_object": True},
    {"grammar": 'start: e\ne: e "+" e | "(" e ")" | /[0-9]/'},
    {"tools": TOOLS, "tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": "who"},
    {"tools": TOOLS},
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--aborts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # faster for rows as short as these
    result = measure(arguments.requests, arguments.aborts, arguments.seed, say=progress)
    for name, value in result.items():
        print(f"{name:<24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


def progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)


def measure(num_requests: int, num_aborts: int, seed: int, say: Callable[[str], None] = len) -> dict:
    """Run half of the requests on each model, with each kind of drafts; then the aborts."""
    begin, rng = time.monotonic(), random.Random(seed)
    names = ("requests", "constrained", "tokens", "differences", "preemptions", "aborted", "failed")
    result = dict.fromkeys(names, 0)
    result |= dict.fromkeys(("shared_tokens", "drafted_tokens", "accepted_tokens", "pages_lost"), 0)
    for config in (V3, QWEN):
        model = initialize(Transformer(config), torch.Generator().manual_seed(seed))
        drafts = ("oracle", "prompt_lookup", *(("mtp",) if config is V3 else ()))
        for number, kind in enumerate(drafts):
            count = num_requests // 2 * (number + 1) // len(drafts) - num_requests // 2 * number // len(
                drafts
            )
            compare(model, count, kind, rng, result, say)
        result["pages_lost"] += abort_at_random(model, num_aborts // 2, rng, result, say)
    result["acceptance"] = round(result["accepted_tokens"] / max(result["drafted_tokens"], 1), 3)
    result["seconds"] = round(time.monotonic() - begin, 1)
    has_failed = result["differences"] or result["pages_lost"] or result["failed"]
    return result | {"verdict": "FAIL" if has_failed else "PASS"}


def prefixes(rng: random.Random) -> list[list[int]]:
    """Token ids that several prompts begin with."""
    return [[rng.randrange(256) for _ in range(rng.randrange(20, 100))] for _ in range(6)]


def requests(rng: random.Random, count: int, starts: list[list[int]]) -> list[Request]:
    """Requests whose prompts often share a prefix, with all kinds of greedy parameters."""
    result = []
    for number in range(count):
        prompt = list(rng.choice(starts)) if rng.random() < 0.6 else []
        prompt += [rng.randrange(256) for _ in range(rng.randrange(1, 60))]
        length = int(MOST_TOKENS ** rng.random())
        extra = rng.choice(
            [
                {},
                {"n": 2},
                {"repetition_penalty": 1.3, "frequency_penalty": 0.2},
                {"logit_bias": {rng.randrange(256): 3.0}},
                {"logit_bias": {TOKENIZER.eos_id: 20.0}, "logprobs": 3},
                {"stop": [rng.choice(string.printable), rng.choice(string.ascii_letters) * 2, "a"]},
                {"stop": ['"', "1", "b"], "include_stop_str_in_output": True, "logprobs": 0},
                {"stop_token_ids": [rng.randrange(256) for _ in range(8)], "logprobs": 1},
            ]
        )
        if rng.random() < 0.5:
            extra["structured_outputs"] = structured(rng, extra)
        elif rng.random() < 0.5:
            extra["min_tokens"] = length // 2
        params = SamplingParams(temperature=0, max_tokens=length, output_kind="final_only", **extra)
        result.append(Request(request_id=str(number), prompt_token_ids=prompt, sampling_params=params))
    return result


def structured(rng: random.Random, extra: dict) -> StructuredOutputsParams:
    """A grammar, which may begin behind thinking that ends soon."""
    if rng.random() < 0.7:
        return StructuredOutputsParams(**rng.choice(GRAMMARS))
    extra["logit_bias"] = {**extra.get("logit_bias", {}), END_OF_THINKING: rng.choice([2.0, 4.0])}
    return StructuredOutputsParams(**rng.choice(GRAMMARS[:-3]), after_token_id=END_OF_THINKING)


def engine(model: Transformer, pages: int, **settings: object) -> Engine:
    layers = model.config.num_hidden_layers + (settings["speculation"] == "mtp")
    num_bytes = pages * page_bytes(model.config, layers, model.compute_dtype.itemsize)
    return Engine(model, TOKENIZER, EngineSettings(kv_cache_memory_bytes=num_bytes, **settings))


class Oracle:
    """Drafter that knows the right tokens and is wrong now and then, at any position."""

    def __init__(self, answers: dict[str, Outputs], rng: random.Random) -> None:
        self.answers, self.rng = answers, rng

    def draft(self, batch, hidden_ND, depth):
        drafts = {}
        for item in batch.items:
            sequence = item.sequence
            outputs = self.answers.get(sequence.request.request_id)
            answer = outputs[sequence.index].token_ids if outputs else ()
            count = self.rng.randrange(depth + 1)
            ids = list(answer[sequence.num_output_tokens : sequence.num_output_tokens + count])
            if sequence.is_running and sequence.num_uncomputed_tokens == 1 and ids:
                drafts[sequence] = [i if self.rng.random() < 0.8 else self.rng.randrange(256) for i in ids]
        return drafts


def compare(model, count: int, kind: str, rng: random.Random, result: dict, say) -> None:
    """Run `count` requests alone and among others, and add the figures to `result`."""
    starts = prefixes(rng)
    batch = requests(rng, count, starts)
    alone: dict[str, Outputs] = {}
    single = engine(model, LONGEST_PAGES, speculation="off", max_num_seqs=1, enable_prefix_caching=False)
    for request in batch:
        say(f"alone, {len(alone)} of {len(batch)}")
        single.add_request(request)
        alone |= finish(single)
    crowd = engine(
        model,
        CROWD_PAGES,
        speculation="off" if kind == "oracle" else kind,
        max_num_seqs=CROWD,
        max_num_batched_tokens=CROWD + 137,
        prompt_share=0.5,
        num_speculative_tokens=3,
        adaptive_speculation=False,
    )
    if kind == "oracle":
        crowd.speculation = Speculation(Oracle(alone, rng), num_speculative_tokens=3, adaptive=None)
    together = run_crowd(crowd, batch, starts, rng, say)
    counters = crowd.counters
    result["requests"] += len(batch)
    result["constrained"] += sum(r.sampling_params.structured_outputs is not None for r in batch)
    result["tokens"] += sum(len(output.token_ids) for outputs in alone.values() for output in outputs)
    different = [name for name, outputs in alone.items() if not are_equal(together[name], outputs)]
    result["differences"] += len(different)
    result.setdefault("examples", []).extend(describe(alone[n], together[n]) for n in different[:2])
    result["preemptions"] += counters.preemptions
    result["aborted"] += counters.aborted
    result["failed"] += counters.failed + single.counters.failed
    result["shared_tokens"] += counters.cached_tokens
    result["drafted_tokens"] += counters.drafted_tokens
    result["accepted_tokens"] += counters.accepted_tokens
    result["pages_lost"] += counters.pages_used + single.counters.pages_used


def are_equal(these: Outputs, those: Outputs) -> bool:
    """Return whether two runs of a request gave the same; logprobs may differ by rounding."""
    return all(a == b for a, b in zip(map(exact, these), map(exact, those), strict=True)) and all(
        abs(p - q) < TOLERANCE
        for a, b in zip(these, those, strict=True)
        for p, q in zip(a.token_logprobs or (), b.token_logprobs or (), strict=True)
    )


def exact(output: CompletionOutput) -> tuple:
    """All but the logprobs, of which only the number of entries is exact."""
    num_logprobs = [
        None if values is None else len(values) for values in (output.token_logprobs, output.logprobs)
    ]
    return output.token_ids, output.text, output.finish_reason, output.stop_reason, *num_logprobs


def describe(these: Outputs, those: Outputs) -> str:
    return " / ".join(str([exact(output) for output in outputs]) for outputs in (these, those))


def finish(serving: Engine) -> dict[str, Outputs]:
    """Step until all requests are finished; returns their outputs."""
    outputs: dict[str, Outputs] = {}
    while serving.has_unfinished():
        outputs |= {out.request_id: out.outputs for out in serving.step() if out.finished}
    return outputs


def run_crowd(
    crowd: Engine, batch: list[Request], starts: list, rng: random.Random, say
) -> dict[str, Outputs]:
    """Keep 64 requests in the engine until the batch is finished; decoys among them are aborted."""
    outputs: dict[str, Outputs] = {}
    waiting, live, decoys, num_decoys = list(batch), set(), [], 0
    pages: list[int] = []
    while waiting or live:
        while len(live) + len(decoys) < CROWD:
            if waiting and (rng.random() < 0.7 or len(decoys) > CROWD // 3):
                request = waiting.pop()
                live.add(request.request_id)
            else:
                num_decoys += 1
                (decoy,) = requests(rng, 1, starts)
                endless = replace(decoy.sampling_params, n=1, max_tokens=None, ignore_eos=True)
                request = replace(decoy, request_id=f"decoy {num_decoys}", sampling_params=endless)
                decoys.append(request.request_id)
            crowd.add_request(request)
        if decoys and rng.random() < 0.1:
            crowd.abort(decoys.pop(rng.randrange(len(decoys))))
        if rng.random() < 0.2:  # no page is free for a while: a sequence that grows preempts the youngest
            crowd.scheduler.pool.release(pages)
            pages = crowd.scheduler.pool.allocate(crowd.scheduler.pool.num_free) or []
        elif rng.random() < 0.4:
            crowd.scheduler.pool.release(pages)
            pages = []
        for output in crowd.step():
            if output.finished and output.request_id in live:
                outputs[output.request_id] = output.outputs
                live.discard(output.request_id)
            elif output.finished and output.request_id in decoys:
                decoys.remove(output.request_id)
        say(f"among others, {len(outputs)} of {len(batch)}")
    crowd.scheduler.pool.release(pages)
    for decoy in decoys:
        crowd.abort(decoy)
    finish(crowd)
    return outputs


def abort_at_random(model, count: int, rng: random.Random, result: dict, say) -> int:
    """Abort `count` requests at any moment; returns the number of pages that are not free afterwards."""
    serving = engine(model, 40, speculation="prompt_lookup", max_num_seqs=16, adaptive_speculation=False)
    starts, live = prefixes(rng), []
    for number in range(count):
        say(f"aborts, {number} of {count}")
        while len(live) < 24:
            (request,) = requests(rng, 1, starts)
            live.append(f"{number} {len(live)} {rng.random()}")
            serving.add_request(replace(request, request_id=live[-1]))
        serving.abort(live.pop(rng.randrange(len(live))))
        if rng.random() < 0.2:
            finished = {output.request_id for output in serving.step() if output.finished}
            live = [name for name in live if name not in finished]
    result["aborted"] += serving.counters.aborted
    for name in live:
        serving.abort(name)
    num_lost = serving.counters.pages_used
    finish(serving)
    pool = serving.scheduler.pool
    free = pool.allocate(pool.num_pages)
    return num_lost + (0 if free is not None and len(set(free)) == pool.num_pages else 1)


if __name__ == "__main__":
    sys.exit(main())
