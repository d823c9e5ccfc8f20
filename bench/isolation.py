"""Failure of one request in each part of the engine's step, beside requests that must not notice.

    python bench/isolation.py [--requests 1000] [--seed 0] [--json FILE]

The requests and the crowd are those of bench/metamorphic.py. Into the crowd come requests of which each meets
one injected error: in the scheduler, the sampler, the drafts, the grammar, the text, the stop strings or the
output. Each must end with "error" and the error's message; the outputs of all others must be those that they
have alone, and no page may be lost. Exit code 3 otherwise.
"""

import argparse
import json
import logging
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import torch
from metamorphic import (
    CROWD,
    LONGEST_PAGES,
    MOST_TOKENS,
    TOKENIZER,
    V3,
    are_equal,
    engine,
    finish,
    prefixes,
    requests,
)

from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, SamplingParams, StructuredOutputsParams
from shoestring.engine.scheduler import Batch
from shoestring.engine.sequence import Sequence
from shoestring.model.transformer import Transformer, initialize

MESSAGE = "injected"
PAGES = 90
"""About half of the pages that 64 of these requests need."""
CALLED_ONCE = ("_start", "_schedule_prompt", "_register")
PARTS: dict[str, Callable[[Engine], object]] = {
    "scheduler._start": lambda e: e.scheduler,
    "scheduler._schedule_prompt": lambda e: e.scheduler,
    "scheduler._next_row": lambda e: e.scheduler,
    "scheduler._make_room": lambda e: e.scheduler,
    "scheduler._commit": lambda e: e.scheduler,
    "scheduler._register": lambda e: e.scheduler,
    "sampler._bias": lambda e: e.sampler,
    "sampler._history": lambda e: e.sampler,
    "sampler.filter_drafts": lambda e: e.sampler,
    "speculation.drafter.draft": lambda e: e.speculation.drafter,
}
"""Methods that get a sequence, and their owner: they raise for the failing request's sequence."""
OWN_PARTS: dict[str, Callable[[Engine, object], object]] = {
    "matcher.mask": lambda e, c: e.sampler.matchers[c.sequence],
    "matcher.consume": lambda e, c: e.sampler.matchers[c.sequence],
    "matcher.rollback": lambda e, c: e.sampler.matchers[c.sequence],
    "text.push": lambda e, c: c.text,
    "text._add": lambda e, c: c.text,
    "text._decoder.decode": lambda e, c: c.text._decoder,
    "text._stops.push": lambda e, c: c.text._stops[0],
    "completion.accept": lambda e, c: c,
    "completion._check": lambda e, c: c,
    "completion.output": lambda e, c: c,
    "state.output": lambda e, c: e._requests[c.sequence.request.request_id],
    "state.record_token_time": lambda e, c: e._requests[c.sequence.request.request_id],
}
"""Methods of an object that only the failing request has."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)  # the injected errors are logged with their tracebacks
    result = measure(arguments.requests, arguments.seed)
    for name, value in result.items():
        print(f"{name:<24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


def measure(num_requests: int, seed: int) -> dict:
    """Run the requests alone, then together, with a failing request of each part among them."""
    begin, rng = time.monotonic(), random.Random(seed)
    model = initialize(Transformer(V3), torch.Generator().manual_seed(seed))
    batch = requests(rng, num_requests, prefixes(rng))
    single = engine(model, LONGEST_PAGES, speculation="off", max_num_seqs=1, enable_prefix_caching=False)
    alone = {}
    for request in batch:
        single.add_request(request)
        alone |= finish(single)
    options = {"speculation": "prompt_lookup", "adaptive_speculation": False, "num_speculative_tokens": 3}
    crowd = engine(model, PAGES, max_num_seqs=CROWD, max_num_batched_tokens=CROWD + 137, **options)
    together = run(crowd, batch, rng)
    failures = {name: together.pop(f"failing {name}")[0] for name in (*PARTS, *OWN_PARTS)}
    wrong = {
        name: f"{output.finish_reason}: {output.stop_reason}"
        for name, output in failures.items()
        if output.finish_reason != "error" or MESSAGE not in str(output.stop_reason)
    }
    result = {
        "requests": len(batch),
        "failing_parts": len(failures),
        "differences": sum(not are_equal(together[name], outputs) for name, outputs in alone.items()),
        "not_failed_as_meant": wrong,
        "preemptions": crowd.counters.preemptions,
        "failed": crowd.counters.failed,
        "pages_lost": crowd.counters.pages_used,
        "rows_lost": CROWD - len(crowd.scheduler._free_rows),
        "seconds": round(time.monotonic() - begin, 1),
    }
    is_good = not (result["differences"] or wrong or result["pages_lost"] or result["rows_lost"])
    return result | {"verdict": "PASS" if is_good and result["failed"] == len(failures) else "FAIL"}


def run(crowd: Engine, batch: list[Request], rng: random.Random) -> dict:
    """Keep the engine full until all are finished; the failing requests come in between."""
    outputs: dict = {}
    failing = [*PARTS, *OWN_PARTS]
    waiting: list = [*batch, *failing]
    rng.shuffle(waiting)
    while waiting or crowd.has_unfinished():
        while waiting and len(crowd._requests) < CROWD:
            entry = waiting.pop()
            if isinstance(entry, str):
                crowd.add_request(failing_request(entry, rng))
                inject(crowd, entry, after=rng.randrange(3))
            else:
                crowd.add_request(entry)
        outputs |= {out.request_id: out.outputs for out in crowd.step() if out.finished}
    return outputs


def failing_request(part: str, rng: random.Random) -> Request:
    """A request that passes through every part, often: its text repeats itself, so that drafts are right."""
    params = SamplingParams(
        max_tokens=MOST_TOKENS * 2,
        ignore_eos=True,
        repetition_penalty=1.01,
        logit_bias=dict.fromkeys(TOKENIZER.encode("ab"), 50.0),
        stop=["the end"],
        logprobs=1,
        seed=1,
        structured_outputs=StructuredOutputsParams(regex="[ab]{200}"),
    )
    prompt = [*(rng.randrange(256) for _ in range(20)), *TOKENIZER.encode("abab" * 10)]
    return Request(request_id=f"failing {part}", prompt_token_ids=prompt, sampling_params=params)


def inject(crowd: Engine, part: str, *, after: int) -> None:
    """Make a part raise for its failing request, the first time or `after` some calls."""
    name, method = f"failing {part}", part.rpartition(".")[2]
    (completion,) = crowd._requests[name].completions
    owner = PARTS[part](crowd) if part in PARTS else OWN_PARTS[part](crowd, completion)
    original, calls = getattr(owner, method), [0]

    def failing(*arguments, **options):
        if part in OWN_PARTS or name in request_ids(arguments):
            calls[0] += 1
            if calls[0] > after or method in CALLED_ONCE:
                raise RuntimeError(MESSAGE)
        return original(*arguments, **options)

    if part == "text._decoder.decode":  # the decoder is written in C
        completion.text._decoder = mock.Mock(decode=failing)
    else:
        setattr(owner, method, failing)


def request_ids(arguments: tuple) -> set[str]:
    """The ids of the requests that a method's arguments are about."""
    sequences = []
    for value in arguments:
        sequences += [item.sequence for item in value.items] if isinstance(value, Batch) else []
        sequences.append(getattr(value, "sequence", value))
    return {one.request.request_id for one in sequences if isinstance(one, Sequence)}


if __name__ == "__main__":
    sys.exit(main())
