"""The only file that uses llguidance: it compiles grammars, and as a script it does so for a parent process.

It imports nothing of the package, so that the child starts in a tenth of a second. Requests and replies
of the child are JSON, each after its length in four bytes.
"""

import json
import sys
from collections.abc import Sequence
from typing import Any, BinaryIO

HEADROOM_BYTES = 128 << 20
"""Memory for one grammar in the child, beyond the child's own."""
OPEN_FILES = 16

# Without forcing, text that a grammar prescribes is not tokenized ahead: with it, a megabyte of such text
# takes a second and 200 MB in a single step.
OPTIONS = '\n%llguidance {"no_forcing": true}'

ROW_ITEMS = 2000
"""The most parser items at one position of a text; an optional property of an object takes four."""
LARK_ROW_ITEMS = 500
"""The same for users' own grammars, in which a token's time can grow with its square."""
NO_TEXT = "nothing can match it"
"""The error of a grammar without any text."""
LIMITS = {
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 20_000,
    "max_lexer_states": 65_536,  # half a kilobyte each, in every request that uses the grammar
    "max_grammar_size": 100_000,
    "precompute_large_lexemes": False,
    "verbose_errors": False,
}
"""llguidance's own limits, so low that no grammar we could construct takes 0.1 s for one token."""


class Vocabulary:
    """A tokenizer as `llguidance.TokenizerWrapper` reads it: each id's bytes, and the special ids."""

    def __init__(self, tokens: Sequence[bytes], special_ids: Sequence[int], eos_id: int) -> None:
        self.tokens = list(tokens)
        self.special_token_ids = list(special_ids)
        self.eos_token_id = eos_id
        self.bos_token_id = None

    def __call__(self, text: bytes | str) -> list[int]:
        """Tokenize; llguidance calls it once, to test whether it takes bytes."""
        return []


def native_tokenizer(tokens: Sequence[bytes], special_ids: Sequence[int], eos_ids: Sequence[int]) -> Any:
    """An `LLTokenizer` of one entry per id; ids without a token are empty and never allowed."""
    from llguidance import LLTokenizer, TokenizerWrapper

    wrapper = TokenizerWrapper(Vocabulary(tokens, special_ids, eos_ids[0]))
    return LLTokenizer(wrapper, n_vocab=len(tokens), eos_token=list(eos_ids))


def native_matcher(tokenizer: Any, grammar: str, *, row_items: int = ROW_ITEMS) -> tuple[Any, str]:
    """Compile Lark text: the matcher with its first mask computed, and an error, empty if there is none."""
    from llguidance import LLMatcher, LLParserLimits

    matcher = LLMatcher(
        tokenizer,
        LLMatcher.grammar_from_lark(grammar + OPTIONS),
        log_level=0,
        limits=LLParserLimits(max_items_in_row=row_items, **LIMITS),  # type: ignore[arg-type]
    )
    if not matcher.is_error():
        matcher.compute_bitmask()
    return matcher, describe(matcher.get_error()) if matcher.is_error() else ""


def lark_regex(regex: str) -> str:
    """A regex in Lark's notation, between slashes."""
    from llguidance import LLMatcher

    lark: str = json.loads(LLMatcher.grammar_from_regex(regex))["grammars"][0]["lark_grammar"]
    return lark.removeprefix("start: ")


def describe(error: str) -> str:
    """llguidance's message as part of a sentence: one line, without its dump of the state."""
    if "NoExtension" in error:
        return NO_TEXT
    if "oneOf constraints" in error:
        return (
            "alternatives of a oneOf may hold for the same value; write anyOf, or give each object in it "
            "a required property with a const of its own"
        )
    lines = error.split("<non-verbose/>")[0].strip().split("\n")
    text = lines[0].strip() or "it cannot be used"
    for prefix in ("failed to compile JSON schema: ", "Unsatisfiable schema: "):
        text = text.partition(prefix)[2] or text
    reasons = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if "too " in text or "fuel" in text or "max is" in text:
        reasons.append("make it smaller")
    return "; ".join((text[:300], *reasons[:2])).encode(errors="replace").decode()


def main() -> None:
    """Answer the setup (see CompileChild), then each `{"grammar": text}` until the pipe is closed."""
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    setup = receive(requests)
    tokenizer = byte_tokenizer(setup["specials"], setup["eos_ids"], setup["vocab_size"])
    native_matcher(tokenizer, 'start: "a"')  # load everything before memory is limited
    limit_resources()
    send(replies, {"ready": True})
    while (request := receive(requests)) is not None:
        limit_cpu_time(request["cpu_s"])
        try:
            _, error_text = native_matcher(tokenizer, request["grammar"], row_items=request["row_items"])
        except Exception as error:  # the parent reports whatever a hostile grammar raises
            error_text = describe(f"{type(error).__name__}: {error}")
        limit_cpu_time(0)
        send(replies, {"error": error_text})


def byte_tokenizer(specials: dict[str, int], eos_ids: Sequence[int], vocab_size: int) -> Any:
    """The special tokens at their ids and the 256 bytes between them: built in a millisecond."""
    tokens = [b""] * vocab_size
    for spelling, token_id in specials.items():
        tokens[token_id] = spelling.encode()
    free = (token_id for token_id, token in enumerate(tokens) if not token)
    for byte, token_id in zip(range(256), free, strict=False):
        tokens[token_id] = bytes([byte])
    return native_tokenizer(tokens, sorted(specials.values()), eos_ids)


def limit_resources() -> None:
    """Limit memory, files and processes, where the system has such limits."""
    try:
        import resource
    except ImportError:  # Windows: the parent's time limit still holds
        return
    memory = {"RLIMIT_AS": address_space_bytes() + HEADROOM_BYTES}
    limits = {**memory, "RLIMIT_NOFILE": OPEN_FILES, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}
    for name, limit in limits.items():
        try:
            resource.setrlimit(getattr(resource, name), (limit, limit))
        except (ValueError, OSError, AttributeError):  # macOS refuses some
            continue


def address_space_bytes() -> int:
    """Address space that this process uses now; a generous guess where /proc is missing."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * 4096
    except (OSError, ValueError):
        return 1 << 30


def limit_cpu_time(seconds: float) -> None:
    """End this process by SIGPROF after so much processor time (0: never), where the system has that."""
    import signal

    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, seconds)


def send(pipe: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    pipe.write(len(data).to_bytes(4, "big") + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """The next message, or None when the parent has closed the pipe."""
    head = pipe.read(4)
    return json.loads(pipe.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


if __name__ == "__main__":
    main()
