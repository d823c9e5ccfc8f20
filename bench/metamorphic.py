"""Tokens of requests alone and among 63 others, with aborts, preemption and drafts: they must be the same.

    python bench/metamorphic.py [--requests 2000] [--aborts 10000] [--seed 0] [--json FILE]

Two tiny random models, one V3-shaped (MLA, experts, an MTP module) and one Qwen2-shaped, greedy in float32.
Each request runs once alone, without sharing or drafts, and once in a crowd whose cache is too small for it,
beside decoys that are aborted at random moments; drafts come from the MTP module, from prompt lookup, and
from an oracle that is right most of the time. Then random aborts, after which every page must be free.
Exit code 3 says that a token differed or a page was lost.
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
"""About half of what 64 of these requests would like to have."""
LONGEST_PAGES = pages_for(100 + 60 + MOST_TOKENS)
Tokens = tuple[int, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--aborts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # rows this short are faster so
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
    """Half of the requests on either model, in crowds of each kind of drafts; then the aborts."""
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
    bad = result["differences"] or result["pages_lost"] or result["failed"]
    return result | {"verdict": "FAIL" if bad else "PASS"}


def beginnings(rng: random.Random) -> list[list[int]]:
    """What prompts of one crowd may begin with."""
    return [[rng.randrange(256) for _ in range(rng.randrange(20, 100))] for _ in range(6)]


def requests(rng: random.Random, count: int, shared: list[list[int]]) -> list[Request]:
    """Prompts that often begin alike, and greedy parameters of every kind."""
    made = []
    for number in range(count):
        prompt = list(rng.choice(shared)) if rng.random() < 0.6 else []
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
        made.append(Request(request_id=str(number), prompt_token_ids=prompt, sampling_params=params))
    return made


def engine(model: Transformer, pages: int, **settings: object) -> Engine:
    layers = model.config.num_hidden_layers + (settings["speculation"] == "mtp")
    num_bytes = pages * page_bytes(model.config, layers, model.compute_dtype.itemsize)
    return Engine(model, None, EngineSettings(kv_cache_memory_bytes=num_bytes, **settings))


class Oracle:
    """A drafter that knows the answers and is wrong now and then, in every possible place."""

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
    """Add to `result` what so many requests gave alone and among others."""
    shared = beginnings(rng)
    asked = requests(rng, count, shared)
    alone: dict[str, Tokens] = {}
    single = engine(model, LONGEST_PAGES, speculation="off", max_num_seqs=1, enable_prefix_caching=False)
    for request in asked:
        say(f"alone, {len(alone)} of {len(asked)}")
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
    together = run_crowd(crowd, asked, shared, rng, say)
    counters = crowd.counters
    result["requests"] += len(asked)
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
    """Step until nothing is left."""
    done: dict[str, Tokens] = {}
    while serving.has_unfinished():
        done |= {out.request_id: out.outputs[0].token_ids for out in serving.step() if out.finished}
    return done


def run_crowd(
    crowd: Engine, asked: list[Request], shared: list, rng: random.Random, say
) -> dict[str, Tokens]:
    """Keep 64 requests in the engine until all are done: those asked, and decoys that are aborted."""
    done: dict[str, Tokens] = {}
    waiting, live, decoys, made = list(asked), set(), [], 0
    taken: list[int] = []
    while waiting or live:
        while len(live) + len(decoys) < CROWD:
            if waiting and (rng.random() < 0.7 or len(decoys) > CROWD // 3):
                request = waiting.pop()
                live.add(request.request_id)
            else:
                made += 1
                (decoy,) = requests(rng, 1, shared)
                endless = replace(decoy.sampling_params, max_tokens=None, ignore_eos=True)
                request = replace(decoy, request_id=f"decoy {made}", sampling_params=endless)
                decoys.append(request.request_id)
            crowd.add_request(request)
        if decoys and rng.random() < 0.1:
            crowd.abort(decoys.pop(rng.randrange(len(decoys))))
        if rng.random() < 0.2:  # what is free is gone for a while: whoever grows now preempts the youngest
            crowd.scheduler.pool.release(taken)
            taken = crowd.scheduler.pool.allocate(crowd.scheduler.pool.num_free) or []
        elif rng.random() < 0.4:
            crowd.scheduler.pool.release(taken)
            taken = []
        for output in crowd.step():
            if output.finished and output.request_id in live:
                done[output.request_id] = output.outputs[0].token_ids
                live.discard(output.request_id)
            elif output.finished and output.request_id in decoys:
                decoys.remove(output.request_id)
        say(f"among others, {len(done)} of {len(asked)}")
    crowd.scheduler.pool.release(taken)
    for decoy in decoys:
        crowd.abort(decoy)
    finish(crowd)
    return done


def abort_at_random(model, count: int, rng: random.Random, result: dict, say) -> int:
    """Abort so many requests at any moment of their lives; the pages that are not free afterwards."""
    serving = engine(model, 40, speculation="prompt_lookup", max_num_seqs=16, adaptive_speculation=False)
    shared, live = beginnings(rng), []
    for number in range(count):
        say(f"aborts, {number} of {count}")
        while len(live) < 24:
            (request,) = requests(rng, 1, shared)
            live.append(f"{number} {len(live)} {rng.random()}")
            serving.add_request(replace(request, request_id=live[-1]))
        serving.abort(live.pop(rng.randrange(len(live))))
        if rng.random() < 0.2:
            finished = {output.request_id for output in serving.step() if output.finished}
            live = [name for name in live if name not in finished]
    result["aborted"] += serving.counters.aborted
    for name in live:
        serving.abort(name)
    held = serving.counters.pages_used
    finish(serving)
    pool = serving.scheduler.pool
    free = pool.allocate(pool.num_pages)
    return held + (0 if free is not None and len(set(free)) == pool.num_pages else 1)


if __name__ == "__main__":
    sys.exit(main())
