"""Grammars of an engine's requests: made when the first request needs one, for any thread to have ready."""

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

from shoestring.engine.request import SamplingParams, StructuredOutputsParams
from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer

if TYPE_CHECKING:
    from shoestring.engine.constrain.grammars import Grammar, GrammarCache, Matcher


class Grammars:
    """The compiled grammars of one engine. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer | None, vocab_size: int, eos_ids: Collection[int]) -> None:
        self._tokenizer, self._vocab_size, self._eos_ids = tokenizer, vocab_size, sorted(eos_ids)
        self._lock = threading.Lock()
        self._cache: GrammarCache | None = None

    def compile(self, spec: StructuredOutputsParams) -> "Grammar":
        """The grammar of a form, compiled or from the cache; compiling may take a second.

        Raises ConfigError for a form that cannot be compiled.
        """
        from shoestring.engine.constrain.grammars import GrammarCache

        if self._tokenizer is None:
            raise ConfigError("structured_outputs need an engine with a tokenizer")
        with self._lock:
            if self._cache is None:
                self._cache = GrammarCache(self._tokenizer, self._vocab_size, eos_ids=self._eos_ids)
        return self._cache.compile(spec)

    def matchers(self, params: SamplingParams) -> "list[Matcher]":
        """A matcher for each completion of a request; none without a form."""
        spec = params.structured_outputs
        if spec is None:
            return []
        grammar = self.compile(spec)
        return [grammar.matcher(after=spec.after_token_id) for _ in range(params.n)]
