"""A sequence, one completion as the scheduler sees it: its tokens, pages and progress, or its failure."""

import logging
import secrets
from dataclasses import dataclass, field

from shoestring.engine.pages import CachedPage
from shoestring.engine.request import Request, SamplingParams
from shoestring.errors import ShoestringError

log = logging.getLogger(__name__)


@dataclass(eq=False, kw_only=True, slots=True, weakref_slot=True)
class Sequence:
    """Completion `index` of a request. Three counts are its state: tokens, prompt tokens, computed ones."""

    request: Request
    params: SamplingParams
    """The request's sampling_params."""
    num_prompt_tokens: int
    index: int
    seed: int
    max_length: int
    """Tokens of prompt and output at which the completion ends."""
    token_ids: list[int]
    """Prompt and output."""
    is_plain: bool
    """The params' is_plain."""
    leader: "Sequence | None" = None
    """The first completion of the same prompt, whose pages this one waits to share."""
    bad_words: list[list[int]] = field(default_factory=list)
    """Tokens of the request's bad_words."""
    num_computed_tokens: int = 0
    """Tokens whose entries are in the cache."""
    page_ids: list[int] = field(default_factory=list)
    cached_pages: list[CachedPage] = field(default_factory=list)
    """Its first full pages, as the prefix cache has them."""
    drafts: list[int] = field(default_factory=list)
    """Token ids that the next step verifies."""
    table_row: int = -1
    """Its row of the page table while it runs."""
    num_admissions: int = 0
    first_computed: int = 0
    """The position at which computing began after its last admission: the end of the cached prefix."""
    num_cached_tokens: int = 0
    """Prompt tokens in the prefix cache when it was first admitted."""

    @classmethod
    def start(
        cls, request: Request, index: int, max_length: int, leader: "Sequence | None" = None
    ) -> "Sequence":
        """Completion `index` of a request, with the request's seed + index, or a random seed."""
        params, tokens = request.sampling_params, list(request.prompt_token_ids)
        return cls(
            request=request,
            params=params,
            num_prompt_tokens=len(tokens),
            index=index,
            seed=secrets.randbits(64) if params.seed is None else params.seed + index,
            max_length=max_length,
            token_ids=tokens,
            is_plain=params.is_plain,
            leader=leader,
        )

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids) - self.num_prompt_tokens

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens that still have to be computed; 1 while decoding."""
        return len(self.token_ids) - self.num_computed_tokens

    @property
    def has_computed_prompt(self) -> bool:
        return self.num_computed_tokens >= self.num_prompt_tokens

    @property
    def needs_whole_prompt(self) -> bool:
        """Return whether all of its prompt is computed, cached or not, to report logprobs."""
        return self.params.prompt_logprobs is not None and self.index == 0

    @property
    def is_running(self) -> bool:
        return self.table_row >= 0


class Failures(dict[Sequence, str]):
    """The message of the first error of each sequence that cannot go on."""

    def add(self, sequence: Sequence, error: Exception) -> None:
        """Record what one sequence's part raised; an error that is not ours is logged with its traceback."""
        self.setdefault(sequence, message(error))
        if not isinstance(error, ShoestringError):
            log.error("request %s: %s", sequence.request.request_id, message(error), exc_info=error)

    def drain(self) -> "Failures":
        """The failures so far, which are forgotten here."""
        failures = Failures(self)
        self.clear()
        return failures


def message(error: Exception) -> str:
    """An error as the sentence that the request's caller reads."""
    return str(error) if isinstance(error, ShoestringError) else f"{type(error).__name__}: {error}"
