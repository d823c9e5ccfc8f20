"""Constrained output under test: random JSON schemas give valid documents, hostile grammars cost no time.

    python bench/schemas.py [--schemas 1000] [--hostile 10000] [--seed 0] [--json FILE]

Documents are written by choosing randomly among the allowed tokens, and checked with the `jsonschema`
library. Hostile schemas, regexes and Lark grammars come from families with random sizes; each must be
refused, or compiled and followed for a few tokens, within a second. Exit code 3 when a document is invalid,
something takes longer than a second, or an error other than ConfigError is raised.
"""

import argparse
import json
import random
import resource
import sys
import sysconfig
import time
from decimal import Decimal, InvalidOperation, localcontext
from pathlib import Path

import jsonschema
import numpy as np
from schemas_families import FAMILIES, random_schema

from shoestring.engine.constrain.grammars import Grammar, GrammarCache, unpack_mask
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer

LIMIT_S = 1.0
REPEATS = 3
"""Repeated measurements of what took longer, since the machine may have been busy or asleep."""
SOFT_STEPS = 60
"""Number of tokens after which tokens that end the document are preferred."""
HARD_STEPS = 3000
PRECISION = 1000
CHECKER = jsonschema.FormatChecker()
CLOSERS = [
    b"}",
    b"]",
    b'"',
    b":",
    b",",
    *(str(digit).encode() for digit in range(10)),
    b"n",
    b"t",
    b"f",
    b"x",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemas", type=int, default=1000)
    parser.add_argument("--hostile", type=int, default=10_000)
    parser.add_argument("--vocab-size", type=int, default=8000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tokenizer = train(arguments.vocab_size)
    cache = warm_cache(tokenizer)
    result = {
        "vocab_size": tokenizer.vocab_size,
        **documents(cache, arguments.schemas, arguments.seed),
        **hostile(cache, arguments.hostile, arguments.seed),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    cache.close()
    is_good = not (result["invalid"] or result["unfinished"] or result["crashes"])
    is_good = (
        is_good
        and max(result["hostile_max_s"], result["hostile_max_step_s"], result["max_step_s"]) <= LIMIT_S
    )
    result["verdict"] = "PASS" if is_good else "FAIL"
    for name, value in result.items():
        print(f"{name:<24} {value}")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if is_good else 3


def train(vocab_size: int) -> Tokenizer:
    """Train a byte-level BPE on the standard library."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = sorted(folder.glob("*.py"))[:80] + sorted(folder.glob("json/*.py"))
    return Tokenizer.train((file.read_text(encoding="utf-8", errors="replace") for file in files), vocab_size)


def documents(cache: GrammarCache, count: int, seed: int) -> dict:
    """Write one document for each of `count` random schemas that compile, and check it."""
    chance, num_schemas, num_refused, invalid, unfinished = random.Random(seed), 0, 0, [], []
    tokens, seconds, longest = 0, 0.0, 0.0
    while num_schemas < count:
        schema = random_schema(chance)
        try:
            grammar = cache.compile(StructuredOutputsParams(json=schema))
        except ConfigError:
            num_refused += 1  # an intersection or an exclusive choice that llguidance cannot enforce
            continue
        num_schemas += 1
        ids, finished, step_s = write(grammar, cache.tokenizer, chance)
        tokens, seconds, longest = tokens + len(ids), seconds + sum(step_s), max([longest, *step_s])
        text = cache.tokenizer.decode(ids, skip_special=True)
        if not finished:
            unfinished.append({"schema": schema, "text": text[:300]})
        elif not is_valid(text, schema):
            invalid.append({"schema": schema, "text": text[:300]})
    return {
        "schemas": num_schemas,
        "refused_before": num_refused,
        "invalid": len(invalid),
        "unfinished": len(unfinished),
        "examples": (invalid + unfinished)[:5],
        "tokens": tokens,
        "mean_step_us": round(seconds / max(tokens, 1) * 1e6, 1),
        "max_step_s": round(longest, 4),
    }


def write(
    grammar: Grammar, tokenizer: Tokenizer, chance: random.Random
) -> tuple[list[int], bool, list[float]]:
    """Choose allowed tokens at random, later those that end: the ids, whether it has ended, the times."""
    matcher, ids, step_s = grammar.matcher(), [], []
    closers = [tokenizer.eos_id, *(tokenizer.encode(text.decode())[0] for text in CLOSERS)]
    for step in range(HARD_STEPS):
        start = time.perf_counter()
        mask = matcher.mask()
        mask_end = time.perf_counter()
        allowed = np.flatnonzero(unpack_mask(mask, grammar.vocab_size))
        closing = [i for i in closers if i in allowed] if step > SOFT_STEPS else []
        ends = tokenizer.eos_id in closing
        token_id = tokenizer.eos_id if ends else int(chance.choice(closing or allowed))
        consume_start = time.perf_counter()
        is_accepted = matcher.consume(token_id)
        step_s.append(mask_end - start + time.perf_counter() - consume_start)
        if not is_accepted:
            raise AssertionError(f"token {token_id} was in the mask and then refused")
        ids.append(token_id)
        if token_id == tokenizer.eos_id:
            return ids, True, step_s
    return ids, False, step_s


def is_valid(text: str, schema: dict) -> bool:
    """Whether jsonschema accepts the document; numbers are read as decimals, so that nothing is rounded."""
    try:
        document = json.loads(text, parse_float=read_number)
        with localcontext(prec=4 * PRECISION):
            jsonschema.Draft202012Validator(schema, format_checker=CHECKER).validate(document)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def read_number(text: str) -> Decimal | float:
    """Read a number exactly, except for huge exponents, which become 0 or infinity."""
    try:
        value = Decimal(text)
    except InvalidOperation:
        return float(text)
    return value if abs(value.adjusted()) < PRECISION else float(text)


def hostile(cache: GrammarCache, count: int, seed: int) -> dict:
    """Compile and follow `count` hostile grammars; only ConfigError may be raised."""
    chance = random.Random(seed)
    outcomes = {"compiled": 0, "refused": 0, "failed_later": 0, "crashes": 0}
    slowest, slowest_step, crashes, num_repeats = (0.0, ""), (0.0, ""), [], 0
    for number in range(count):
        name, family = FAMILIES[number % len(FAMILIES)]
        spec, state = family(chance), chance.getstate()
        outcome, seconds, step = attempt(cache, spec, chance)
        for _ in range(REPEATS):
            if max(seconds, step) <= LIMIT_S:
                break
            num_repeats += 1
            chance.setstate(state)
            fresh = warm_cache(cache.tokenizer)
            outcome, again, step_again = attempt(fresh, spec, chance)
            seconds, step = min(seconds, again), min(step, step_again)
            fresh.close()
        if outcome not in outcomes:
            crashes.append(f"{name}: {outcome}")
            outcome = "crashes"
        outcomes[outcome] += 1
        slowest, slowest_step = max(slowest, (seconds, name)), max(slowest_step, (step, name))
    return {
        "hostile": count,
        **outcomes,
        "crash_examples": crashes[:5],
        "measured_again": num_repeats,
        "hostile_max_s": round(slowest[0], 3),
        "hostile_slowest": slowest[1],
        "hostile_max_step_s": round(slowest_step[0], 4),
        "hostile_slowest_step": slowest_step[1],
    }


def attempt(cache: GrammarCache, spec: dict, chance: random.Random) -> tuple[str, float, float]:
    """Compile one grammar and follow it: the outcome, the compile time, and the longest time of a token."""
    start, step = time.perf_counter(), 0.0
    try:
        matcher = cache.compile(StructuredOutputsParams(**spec)).matcher()
        seconds = time.perf_counter() - start
        step, has_failed = follow(matcher, cache.vocab_size, chance)
        outcome = "failed_later" if has_failed else "compiled"
    except ConfigError:
        seconds, outcome = time.perf_counter() - start, "refused"
    except Exception as error:
        seconds, outcome = time.perf_counter() - start, f"{type(error).__name__}: {error}"[:200]
    return outcome, seconds, step


def warm_cache(tokenizer: Tokenizer) -> GrammarCache:
    """Cache with a running process that compiles grammars."""
    cache = GrammarCache(tokenizer, tokenizer.vocab_size)
    cache.compile(StructuredOutputsParams(json_object=True))
    return cache


def follow(matcher, vocab_size: int, chance: random.Random) -> tuple[float, bool]:
    """Consume a few random tokens: the longest time of one, and whether the grammar failed."""
    longest = 0.0
    for _ in range(20):
        start = time.perf_counter()
        try:
            allowed = np.flatnonzero(unpack_mask(matcher.mask(), vocab_size))
            matcher.consume(int(chance.choice(allowed)))
        except ConfigError:
            return max(longest, time.perf_counter() - start), True
        longest = max(longest, time.perf_counter() - start)
        if matcher.is_stopped:
            break
    return longest, False


if __name__ == "__main__":
    sys.exit(main())
