"""One running completion as the scheduler sees it: its tokens, its pages, and how far it has come."""

import secrets
from dataclasses import dataclass, field

from shoestring.engine.pages import Link
from shoestring.engine.request import Request, SamplingParams


@dataclass(eq=False, kw_only=True, slots=True, weakref_slot=True)
class Sequence:
    """Completion `index` of a request: three counts (tokens, prompt, computed) say what there is to do."""

    request: Request
    params: SamplingParams
    """The request's."""
    prompt_length: int
    index: int
    seed: int
    max_length: int
    """Prompt and output together stop here."""
    token_ids: list[int]
    """Prompt and output."""
    leader: "Sequence | None" = None
    """The first completion of the same prompt, whose pages this one waits to share."""
    computed: int = 0
    """Tokens whose entries are in the cache."""
    pages: list[int] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    """What the first full pages are registered as."""
    drafts: list[int] = field(default_factory=list)
    """Guesses that the next step verifies."""
    row: int = -1
    """Its row in the page table while it runs."""
    admissions: int = 0
    admitted_at: int = 0
    """Where computing began when it was last admitted: behind the pages that were found."""
    cached_tokens: int = 0
    """Prompt tokens found in the cache when it was first admitted."""

    @classmethod
    def start(
        cls, request: Request, index: int, max_length: int, leader: "Sequence | None" = None
    ) -> "Sequence":
        """Completion k draws with seed + k; without a seed, with a random one."""
        params, tokens = request.sampling_params, list(request.prompt_token_ids)
        return cls(
            request=request,
            params=params,
            prompt_length=len(tokens),
            index=index,
            seed=secrets.randbits(64) if params.seed is None else params.seed + index,
            max_length=max_length,
            token_ids=tokens,
            leader=leader,
        )

    @property
    def num_output(self) -> int:
        return len(self.token_ids) - self.prompt_length

    @property
    def remaining(self) -> int:
        """Known tokens that still have to be computed; 1 while decoding."""
        return len(self.token_ids) - self.computed

    @property
    def running(self) -> bool:
        return self.row >= 0
