"""Constrained output: JSON schema, regex, choice, Lark and tool calls as masks over the vocabulary."""

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shoestring.engine.constrain.compile_child import CompileChild
from shoestring.engine.constrain.lark import grammar_text
from shoestring.engine.constrain.native import (
    LARK_ROW_ITEMS,
    ROW_ITEMS,
    describe,
    native_matcher,
    native_tokenizer,
)
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.tool_format import tool_marks

if TYPE_CHECKING:
    import torch

Mask = npt.NDArray[np.uint32]
"""Bit i % 32 of word i // 32 says whether token i is allowed; bits past the vocabulary are 0."""

CACHED_GRAMMARS = 32
CACHED_ANSWERS = 1024


class GrammarCache:
    """Compiles grammars for one tokenizer and keeps the last few by their content. Thread-safe.

    A child process compiles every new grammar first (see CompileChild); it starts with the first one and ends
    with `close` or with this object.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        *,
        eos_ids: Sequence[int] | None = None,
        time_limit_s: float = 0.25,
    ) -> None:
        """`vocab_size` is the width of the logits; `eos_ids` are the tokens that end a text (None: the
        tokenizer's); `time_limit_s` is the processor time for compiling one grammar. Raises TokenizerError
        when the tokenizer has more ids than the logits."""
        tokenizer.check_fits(vocab_size)
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.eos_ids = tuple(eos_ids) if eos_ids else (tokenizer.eos_id,)
        self._specials = tokenizer.specials | tool_marks(tokenizer)
        self._child = CompileChild(self._specials, self.eos_ids, vocab_size, time_limit_s=time_limit_s)
        self._native: Any = None
        self._text_mask = pack_mask((), vocab_size)
        self._grammars: OrderedDict[str, Grammar] = OrderedDict()
        self._answers: OrderedDict[str, bool] = OrderedDict()
        self._lock = threading.Lock()

    def compile(self, spec: StructuredOutputsParams) -> "Grammar":
        """Compile the grammar of `spec`, within about a second and 128 MB.

        Raises ConfigError for a grammar that is wrong, unsupported or too large, MissingDependencyError
        without llguidance.
        """
        try:
            text = grammar_text(spec, self.tokenizer, self._can_match)
            with self._lock:
                if text in self._grammars:
                    self._grammars.move_to_end(text)
                else:
                    self._grammars[text] = self._compile(
                        text, LARK_ROW_ITEMS if spec.grammar is not None else ROW_ITEMS
                    )
                    while len(self._grammars) > CACHED_GRAMMARS:
                        self._grammars.popitem(last=False)
                return self._grammars[text]
        except ImportError:
            raise MissingDependencyError(
                "constrained output needs llguidance; install it with `pip install llguidance`"
            ) from None

    def close(self) -> None:
        """End the compiling process; a later `compile` starts another."""
        self._child.close()

    def _can_match(self, text: str) -> bool:
        """Return whether a grammar has any text; raises ConfigError for one that cannot be compiled."""
        with self._lock:
            if text not in self._answers:
                self._answers[text] = self._child.can_match(text)
                while len(self._answers) > CACHED_ANSWERS:
                    self._answers.popitem(last=False)
            return self._answers[text]

    def _compile(self, text: str, row_items: int) -> "Grammar":
        if self._native is None:
            tokens = [self.tokenizer.token_bytes(token_id) for token_id in range(self.vocab_size)]
            special = set(self._specials.values())
            self._native = native_tokenizer(tokens, sorted(special), self.eos_ids)
            special.update(self.eos_ids)
            texts = [i for i, token in enumerate(tokens) if token and i not in special]
            self._text_mask = pack_mask(texts, self.vocab_size)
        self._child.check(text, row_items=row_items)
        matcher, error = native_matcher(self._native, text, row_items=row_items)
        if error:
            raise ConfigError(f"the grammar or schema cannot be compiled: {error}")
        return Grammar(matcher, self.vocab_size, self.eos_ids, self._text_mask)


class Grammar:
    """A compiled grammar; each request gets a matcher of its own."""

    def __init__(self, native: Any, vocab_size: int, eos_ids: Sequence[int], text_mask: Mask) -> None:
        """`native` is an LLMatcher that has consumed nothing; `text_mask` allows all plain text."""
        self._native = native
        self._text_mask = text_mask
        self.vocab_size = vocab_size
        self.eos_ids = frozenset(eos_ids)
        self.eos_mask = pack_mask(self.eos_ids, vocab_size)

    def matcher(self, *, after: int | None = None) -> "Matcher":
        """A new matcher. With `after`, a token id, the grammar begins behind that token: a reply that starts
        inside its thinking is constrained from `</think>` on."""
        return Matcher(self, self._native.deep_copy(), after)

    def free_mask(self, after: int) -> Mask:
        """The mask before the grammar begins: any text and `after`, but no other special token."""
        return self._text_mask | pack_mask((after,), self.vocab_size)


class Matcher:
    """The position of one text in its grammar: it gives the tokens that may follow, consumes and rolls back.

    Methods raise ConfigError when the grammar takes too long for one token; the request then fails alone.
    """

    def __init__(self, grammar: Grammar, native: Any, after: int | None) -> None:
        self._grammar = grammar
        self._native = native
        self._after = after
        self._free_mask = None if after is None else grammar.free_mask(after)
        self._num_free = 0  # tokens before the grammar began, `after` included
        self._is_before = after is not None
        self._num_matched = 0  # tokens within the grammar
        self._is_at_end = False  # the end token was consumed; llguidance never sees it

    def mask(self) -> Mask:
        """The tokens allowed next, (ceil(vocab_size / 32),); the end token too where the text may end."""
        if self._is_at_end:
            return self._grammar.eos_mask.copy()
        if self._is_before:
            assert self._free_mask is not None
            return self._free_mask.copy()
        eos_mask = self._grammar.eos_mask
        native = np.frombuffer(self._native.compute_bitmask(), dtype=np.uint32)
        self._check()
        # llguidance's mask has a word more when the vocabulary fills the last one.
        mask = native[: len(eos_mask)] & ~eos_mask
        return mask | eos_mask if self._native.is_accepting() else mask

    def consume(self, token_id: int) -> bool:
        """Consume one token; False, changing nothing, when it is not allowed."""
        if self._is_at_end:
            return False
        if self._is_before:
            assert self._free_mask is not None
            if not self._free_mask[token_id // 32] >> np.uint32(token_id % 32) & np.uint32(1):
                return False
            self._num_free += 1
            self._is_before = token_id != self._after
            return True
        if token_id in self._grammar.eos_ids:
            self._is_at_end = bool(self._native.is_accepting())
            return self._is_at_end
        is_allowed = bool(self._native.try_consume_tokens([token_id]))
        self._check()
        self._num_matched += is_allowed
        return is_allowed

    def rollback(self, count: int) -> None:
        """Undo the last `count` tokens consumed, the end token included."""
        assert 0 <= count <= self._num_free + self._num_matched + self._is_at_end
        if count and self._is_at_end:
            self._is_at_end = False
            count -= 1
        num_native = min(count, self._num_matched)
        if num_native:
            self._native.rollback(num_native)
            self._check()
            self._num_matched -= num_native
        if count > num_native:
            self._num_free -= count - num_native
            self._is_before = True

    @property
    def is_accepting(self) -> bool:
        """Return whether the text is complete as it stands."""
        return self._is_at_end or (not self._is_before and bool(self._native.is_accepting()))

    @property
    def is_stopped(self) -> bool:
        """Return whether nothing but the end token may follow."""
        if self._is_at_end or self._is_before:
            return self._is_at_end
        return self.is_accepting and bool(self._native.is_stopped())

    def _check(self) -> None:
        if self._native.is_error():
            raise ConfigError(
                f"the grammar or schema failed while matching: {describe(self._native.get_error())}"
            )


def pack_mask(token_ids: Collection[int], vocab_size: int) -> Mask:
    """The mask that allows exactly these tokens."""
    bits = np.zeros((vocab_size + 31) // 32 * 32, dtype=bool)
    bits[list(token_ids)] = True
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)


def unpack_mask(mask: Mask, width: int) -> npt.NDArray[np.bool_]:
    """One bool per token, (width,); tokens past the mask are not allowed."""
    bits = np.unpackbits(mask.astype("<u4").view(np.uint8), count=width, bitorder="little")
    return bits.view(np.bool_)


def apply_mask(logits_W: "torch.Tensor", mask: Mask) -> "torch.Tensor":
    """Set the logits (W,) of tokens that are not allowed to -inf, in place; returns them."""
    import torch

    forbidden = torch.from_numpy(~unpack_mask(mask, logits_W.shape[-1])).to(logits_W.device)
    return logits_W.masked_fill_(forbidden, float("-inf"))
