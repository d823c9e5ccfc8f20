"""Equality of tokens for requests alone and among 63 others, with aborts, preemption and drafts.

    python bench/metamorphic.py [--requests 2000] [--aborts 10000] [--seed 0] [--json FILE]

Uses two tiny random models in float32, one V3-shaped (MLA, experts, an MTP module) and one Qwen2-shaped,
with greedy sampling. Each request runs once alone, without prefix sharing or drafts, and once in an engine
whose cache is too small, among requests that are aborted at random moments. Drafts come from the MTP module,
from prompt lookup, and from an oracle that is right most of the time. Then requests are aborted at random,
and all pages must be free afterwards. Exit code 3 when a token differs or a page is lost.
"""

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from shoestring.engine.adaptive import Speculation
from shoestring.engine.engine import Engine, EngineSettings
from shoestring.engine.request import Request, SamplingParams
from shoestring.model.config import GQAConfig, RopeConfig
from shoestring.model.memory import page_bytes, pages_for
from shoestring.model.presets import TINY
from shoestring.model.transformer import Transformer, initialize

V3 = replace(TINY, initializer_range=0.2)
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
Tokens = tuple[int, ...]


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
    result = dict.fromkeys(("requests", "tokens", "differences", "preemptions", "aborted", "failed"), 0)
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
                {},
                {"repetition_penalty": 1.3, "frequency_penalty": 0.2},
                {"logit_bias": {rng.randrange(256): 3.0}},
                {"min_tokens": length // 2, "stop_token_ids": [rng.randrange(256) for _ in range(8)]},
            ]
        )
        params = SamplingParams(temperature=0, max_tokens=length, output_kind="final_only", **extra)
        result.append(Request(request_id=str(number), prompt_token_ids=prompt, sampling_params=params))
    return result


def engine(model: Transformer, pages: int, **settings: object) -> Engine:
    layers = model.config.num_hidden_layers + (settings["speculation"] == "mtp")
    num_bytes = pages * page_bytes(model.config, layers, model.compute_dtype.itemsize)
    return Engine(model, None, EngineSettings(kv_cache_memory_bytes=num_bytes, **settings))


class Oracle:
    """Drafter that knows the right tokens and is wrong now and then, at any position."""

    def __init__(self, answers: dict[str, Tokens], rng: random.Random) -> None:
        self.answers, self.rng = answers, rng

    def draft(self, batch, hidden_ND, depth):
        drafts = {}
        for item in batch.items:
            sequence = item.sequence
            answer = self.answers.get(sequence.request.request_id, ())
            count = self.rng.randrange(depth + 1)
            ids = list(answer[sequence.num_output_tokens : sequence.num_output_tokens + count])
            if sequence.is_running and sequence.num_uncomputed_tokens == 1 and ids:
                drafts[sequence] = [i if self.rng.random() < 0.8 else self.rng.randrange(256) for i in ids]
        return drafts


def compare(model, count: int, kind: str, rng: random.Random, result: dict, say) -> None:
    """Run `count` requests alone and among others, and add the figures to `result`."""
    starts = prefixes(rng)
    batch = requests(rng, count, starts)
    alone: dict[str, Tokens] = {}
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
        num_speculative_tokens=3,
        adaptive_speculation=False,
    )
    if kind == "oracle":
        crowd.speculation = Speculation(Oracle(alone, rng), num_speculative_tokens=3, adaptive=None)
    together = run_crowd(crowd, batch, starts, rng, say)
    counters = crowd.counters
    result["requests"] += len(batch)
    result["tokens"] += sum(map(len, alone.values()))
    result["differences"] += sum(together[name] != tokens for name, tokens in alone.items())
    result["preemptions"] += counters.preemptions
    result["aborted"] += counters.aborted
    result["failed"] += counters.failed + single.counters.failed
    result["shared_tokens"] += counters.cached_tokens
    result["drafted_tokens"] += counters.drafted_tokens
    result["accepted_tokens"] += counters.accepted_tokens
    result["pages_lost"] += counters.pages_used + single.counters.pages_used


def finish(serving: Engine) -> dict[str, Tokens]:
    """Step until all requests are finished; returns their tokens."""
    tokens: dict[str, Tokens] = {}
    while serving.has_unfinished():
        tokens |= {out.request_id: out.outputs[0].token_ids for out in serving.step() if out.finished}
    return tokens


def run_crowd(
    crowd: Engine, batch: list[Request], starts: list, rng: random.Random, say
) -> dict[str, Tokens]:
    """Keep 64 requests in the engine until the batch is finished; decoys among them are aborted."""
    tokens: dict[str, Tokens] = {}
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
                endless = replace(decoy.sampling_params, max_tokens=None, ignore_eos=True)
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
                tokens[output.request_id] = output.outputs[0].token_ids
                live.discard(output.request_id)
            elif output.finished and output.request_id in decoys:
                decoys.remove(output.request_id)
        say(f"among others, {len(tokens)} of {len(batch)}")
    crowd.scheduler.pool.release(pages)
    for decoy in decoys:
        crowd.abort(decoy)
    finish(crowd)
    return tokens


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
