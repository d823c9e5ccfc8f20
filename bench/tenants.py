"""Two tenants of one model: no token of one reaches the other, and time does not tell them apart.

    python bench/tenants.py [--requests 100000] [--probes 150] [--seed 0] [--json FILE]

Both tenants ask the embedded model through the service, each for sums that hold the tenant's canary, a
number that no other prompt has; half of all prompts begin alike. A small cache makes the engine preempt, and
a third of the requests are left in the middle. Every reply must be the one that its prompt gets alone, or its
beginning, so a canary that crosses, or a page that is shared across tenants, changes a reply.

Then time to first token of long prompts: asked for the first time, again by the same tenant, and by the
other tenant. A Kolmogorov-Smirnov test must tell the first two apart (p < 1e-6: there is a cache) and the
first from the third not (p > 0.01: it is not shared). Exit code 3 otherwise.
"""

import argparse
import asyncio
import json
import math
import random
import sys
import time
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

from shoestring.device import choose
from shoestring.engine.load import load_engine
from shoestring.engine.settings import EngineSettings
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.local import LocalBackend
from shoestring.serve.backends.request import TextRequest
from shoestring.serve.caller import Caller
from shoestring.serve.service import Service

TENANTS = {"ada": 7919, "bob": 6841}
"""Accounts, and their canaries."""
PROMPTS, TOKENS = 100, 12
STREAMS = 16
CACHE_BYTES = 400_000
LONG_PROMPT = 400
SHARED = "12+34=46\n50-8=42\n7*6=42\n"


def new_service(cache_bytes=None):
    """The service with mini."""
    checkpoint = Checkpoint.open(resolve("mini"))
    settings = EngineSettings(max_num_seqs=STREAMS, max_model_len=512, kv_cache_memory_bytes=cache_bytes)
    engine = load_engine(checkpoint, choose("cpu"), settings=settings)
    return Service({"mini": LocalBackend("mini", engine, checkpoint.template)})


def prompts_of(canary, generator):
    """Sums with a canary in each; half of them begin with the same lines."""
    sums = [f"{canary}+{generator.randrange(100)}-{generator.randrange(100)}=" for _ in range(PROMPTS)]
    return [SHARED * (number % 2) * 3 + text for number, text in enumerate(sums)]


async def reply(service, tenant, prompt, tokens=TOKENS, *, leave_after=None):
    """The text of a reply; its beginning when the client leaves."""
    text = ""
    async with AsyncExitStack() as ending:
        caller = Caller(account_id=tenant, ending=ending)
        sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
        request = TextRequest(prompt=prompt, sampling=sampling, cache_salt=caller.cache_salt(None))
        opened = await service.open(caller, "mini", request)
        async with aclosing(opened.deltas) as deltas:
            count = 0
            async for delta in deltas:
                text += delta.text
                count += 1
                if leave_after is not None and count >= leave_after:
                    break
    return text


async def canaries(arguments):
    """Run the requests; returns how many replies differ, what was left, and the engine's counters."""
    generator = random.Random(arguments.seed)
    prompts = {name: prompts_of(canary, generator) for name, canary in TENANTS.items()}
    alone = new_service()
    await alone.start()
    expected = {
        (name, prompt): await reply(alone, name, prompt) for name in TENANTS for prompt in prompts[name]
    }
    await alone.close()
    service = new_service(CACHE_BYTES)
    await service.start()
    engine = service.backends["mini"].engine
    counts = {"requests": 0, "left": 0, "different": 0}
    start_s = time.monotonic()

    async def client(number):
        own = random.Random(arguments.seed * 1000 + number)
        while counts["requests"] < arguments.requests:
            counts["requests"] += 1
            name = own.choice(list(TENANTS))
            prompt = own.choice(prompts[name])
            leave_after = own.randrange(1, 5) if own.random() < 1 / 3 else None
            text = await reply(service, name, prompt, leave_after=leave_after)
            target = expected[name, prompt]
            is_right = target.startswith(text) if leave_after else text == target
            counts["left"] += leave_after is not None
            counts["different"] += not is_right
            if counts["requests"] % 10_000 == 0:
                print(f"{counts['requests']} requests, {time.monotonic() - start_s:.0f} s", flush=True)

    await asyncio.gather(*(client(number) for number in range(2 * STREAMS)))
    counts["preemptions"] = engine.scheduler.counters.preemptions
    counts["seconds"] = round(time.monotonic() - start_s, 1)
    await service.close()
    return counts


async def first_token_s(service, tenant, prompt):
    """Seconds until the first token of a prompt."""
    start_s = time.perf_counter()
    await reply(service, tenant, prompt, tokens=1)
    return time.perf_counter() - start_s


async def timing(arguments):
    """Times to first token: new prompts, the same again, and the same from the other tenant."""
    generator = random.Random(arguments.seed)
    service = new_service()
    await service.start()
    times = {"new": [], "again": [], "other": []}
    for _ in range(arguments.probes + 5):
        # Three prompts that nobody has asked, in turn, so that noise of the machine falls on all alike.
        prompts = ["".join(generator.choice("0123456789+-*=") for _ in range(LONG_PROMPT)) for _ in range(3)]
        await first_token_s(service, "ada", prompts[1])
        await first_token_s(service, "ada", prompts[2])
        kinds = [("new", "ada", prompts[0]), ("again", "ada", prompts[1]), ("other", "bob", prompts[2])]
        generator.shuffle(kinds)
        for kind, tenant, prompt in kinds:
            times[kind].append(await first_token_s(service, tenant, prompt))
    await service.close()
    times = {kind: values[5:] for kind, values in times.items()}  # the first ones load code
    return {
        "median_ms": {kind: 1e3 * sorted(values)[len(values) // 2] for kind, values in times.items()},
        "p_same_tenant": ks_p(times["new"], times["again"]),
        "p_other_tenant": ks_p(times["new"], times["other"]),
    }


def ks_p(first, second):
    """The p-value of the two-sample Kolmogorov-Smirnov test (asymptotic, Stephens' correction)."""
    points = sorted([*first, *second])
    shares = [
        [sum(value <= point for value in sample) / len(sample) for point in points]
        for sample in (first, second)
    ]
    distance = max(abs(a - b) for a, b in zip(*shares, strict=True))
    size = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    x = (size + 0.12 + 0.11 / size) * distance
    if x < 0.2:
        return 1.0
    return min(max(2 * sum((-1) ** (k - 1) * math.exp(-2 * k * k * x * x) for k in range(1, 101)), 0.0), 1.0)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--probes", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    figures = {"timing": asyncio.run(timing(arguments))}
    print(json.dumps(figures["timing"]), flush=True)
    figures["canaries"] = asyncio.run(canaries(arguments))
    print(json.dumps(figures["canaries"]), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    clock = figures["timing"]
    is_met = figures["canaries"]["different"] == 0 and figures["canaries"]["preemptions"] > 0
    is_met = is_met and clock["p_same_tenant"] < 1e-6 and clock["p_other_tenant"] > 0.01
    print("PASS" if is_met else "FAIL")
    return 0 if is_met else 3


if __name__ == "__main__":
    sys.exit(main())
