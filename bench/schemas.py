"""Constrained output under test: random JSON schemas give valid documents, hostile grammars cost no time.

    python bench/schemas.py [--schemas 5000] [--hostile 10000] [--suite FOLDER] [--seed 0] [--json FILE]

Documents are written by choosing randomly among the allowed tokens, and checked with the `jsonschema`
library. FOLDER is tests/draft2020-12 of the JSON Schema Test Suite: of each of its schemas that is accepted
some documents are written, and its invalid instances must not be allowed.

Hostile schemas, regexes and Lark grammars come from families with random sizes; each must be refused, or
compiled and followed for a few tokens, within a second. Exit code 3 when a document is invalid or cannot
end, something takes longer than a second, or an error other than ConfigError is raised.
"""

import argparse
import json
import random
import re
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
    parser.add_argument("--schemas", type=int, default=5000)
    parser.add_argument("--suite", type=Path)
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
        **(suite(cache, arguments.suite, arguments.seed) if arguments.suite else {}),
        **hostile(cache, arguments.hostile, arguments.seed),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    cache.close()
    names = ("invalid", "unfinished", "crashes", "suite_invalid", "suite_unfinished", "suite_wrong")
    is_good = not any(result.get(name) for name in names)
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
        ids, finished, step_s = write(grammar, cache.tokenizer, chance, schema)
        tokens, seconds, longest = tokens + len(ids), seconds + sum(step_s), max([longest, *step_s])
        text = cache.tokenizer.decode(ids, skip_special=True)
        if not finished:
            unfinished.append({"schema": schema, "text": text})
        elif not is_valid(text, schema):
            invalid.append({"schema": schema, "text": text})
    return {
        "schemas": num_schemas,
        "refused_before": num_refused,
        "accepted_share": round(num_schemas / max(num_schemas + num_refused, 1), 3),
        "invalid": len(invalid),
        "unfinished": len(unfinished),
        "examples": (invalid + unfinished)[:5],
        "tokens": tokens,
        "mean_step_us": round(seconds / max(tokens, 1) * 1e6, 1),
        "max_step_s": round(longest, 4),
    }


def suite(cache: GrammarCache, folder: Path, seed: int) -> dict:
    """Write documents of each schema of the JSON Schema Test Suite, and try its invalid instances."""
    chance = random.Random(seed)
    names = ("schemas", "accepted", "documents", "invalid", "unfinished", "instances", "wrong")
    result: dict = dict.fromkeys(names, 0) | {"examples": []}
    for path in sorted([*folder.glob("*.json"), *folder.glob("optional/*.json")]):
        for group in json.loads(path.read_text(encoding="utf-8")):
            result["schemas"] += 1
            schema = group["schema"]
            try:
                grammar = cache.compile(StructuredOutputsParams(json=json.dumps(schema)))
            except ConfigError:
                continue
            result["accepted"] += 1
            for _ in range(REPEATS):
                ids, is_finished, _ = write(grammar, cache.tokenizer, chance, schema)
                text = cache.tokenizer.decode(ids, skip_special=True)
                result["documents"] += 1
                try:
                    fault = "unfinished" if not is_finished else "" if is_valid(text, schema) else "invalid"
                except re.error:  # a pattern that Python cannot read
                    continue
                if fault:
                    result[fault] += 1
                    result["examples"].append({"file": path.name, "schema": schema, fault: text[:200]})
            for test in group["tests"]:
                result["instances"] += 1
                if not test["valid"] and allows(grammar, cache.tokenizer, json.dumps(test["data"])):
                    result["wrong"] += 1
                    result["examples"].append({"file": path.name, "schema": schema, "wrong": test["data"]})
    return {f"suite_{name}": value for name, value in result.items()}


def allows(grammar: Grammar, tokenizer: Tokenizer, text: str) -> bool:
    matcher = grammar.matcher()
    return all(matcher.consume(token_id) for token_id in tokenizer.encode(text)) and matcher.is_accepting


def write(
    grammar: Grammar, tokenizer: Tokenizer, chance: random.Random, schema: dict | bool
) -> tuple[list[int], bool, list[float]]:
    """Choose allowed tokens at random, later those that end: the ids, whether it has ended, the times.

    Late tokens also spell out words of the schema, which a pattern may need.
    """
    matcher, ids, step_s = grammar.matcher(), [], []
    words = [*re.findall(r"[A-Za-z0-9@.-]+", " ".join(patterns(schema))), "@t.nt", ".nt"]
    word: list[int] = []
    (quote,) = tokenizer.encode('"')
    closers = [tokenizer.eos_id, *(tokenizer.encode(text.decode())[0] for text in CLOSERS)]
    for step in range(HARD_STEPS):
        start = time.perf_counter()
        try:
            mask = matcher.mask()
        except ConfigError:  # no token is allowed
            return ids, False, step_s
        mask_end = time.perf_counter()
        allowed = np.flatnonzero(unpack_mask(mask, grammar.vocab_size))
        closing = [i for i in closers if i in allowed] if step > SOFT_STEPS else []
        if quote in closing and chance.random() < 0.3:
            closing = [quote]
        ends = tokenizer.eos_id in closing
        token_id = tokenizer.eos_id if ends else int(chance.choice(closing or allowed))
        if step > SOFT_STEPS and not ends:
            word = word or (tokenizer.encode(chance.choice(words)) if chance.random() < 0.3 else [])
            if word and word[0] in allowed:
                token_id = word.pop(0)
            else:
                word = []
        consume_start = time.perf_counter()
        is_accepted = matcher.consume(token_id)
        step_s.append(mask_end - start + time.perf_counter() - consume_start)
        if not is_accepted:
            raise AssertionError(f"token {token_id} was in the mask and then refused")
        ids.append(token_id)
        if token_id == tokenizer.eos_id:
            return ids, True, step_s
    return ids, False, step_s


def patterns(schema: object) -> list[str]:
    """The patterns anywhere in a schema."""
    if isinstance(schema, list):
        return [pattern for inner in schema for pattern in patterns(inner)]
    if not isinstance(schema, dict):
        return []
    own = [schema["pattern"]] if isinstance(schema.get("pattern"), str) else []
    names = schema.get("patternProperties")
    return [*own, *(names if isinstance(names, dict) else ()), *patterns(list(schema.values()))]


def is_valid(text: str, schema: dict) -> bool:
    """Return whether jsonschema accepts the document; numbers are read as decimals, so none is rounded."""
    try:
        document = json.loads(text, parse_float=read_number)
        schema = json.loads(json.dumps(schema), parse_float=read_number)
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
