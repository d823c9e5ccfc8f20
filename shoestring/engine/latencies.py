"""Distributions of requests' times and lengths, as counts in buckets: what LLM.get_metrics reports."""

from bisect import bisect_left
from dataclasses import dataclass, field

from shoestring.engine.output import CompletionState, RequestState

TIMES_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0),
    *(40.0, 80.0, 160.0, 640.0, 2560.0),
)
LENGTHS = tuple(float(digit * 10**power) for power in range(6) for digit in (1, 2, 5))


@dataclass(slots=True)
class Distribution:
    """Numbers seen so far: their sum, and how many of them lie between two bounds."""

    bounds: tuple[float, ...]
    """Upper bounds of the buckets, themselves included; one more bucket has none."""
    total: float = 0.0
    counts: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def add(self, value: float) -> None:
        self.total += value
        self.counts[bisect_left(self.bounds, value)] += 1


class Latencies:
    """An engine's distributions, and the number of drafts accepted at each place behind a token."""

    def __init__(self, num_speculative_tokens: int) -> None:
        self.first_token_s, self.between_tokens_s = Distribution(TIMES_S), Distribution(TIMES_S)
        self.decode_s, self.request_s = Distribution(TIMES_S), Distribution(TIMES_S)
        self.prompt_tokens, self.generated_tokens = Distribution(LENGTHS), Distribution(LENGTHS)
        self.accepted_at = [0] * num_speculative_tokens

    def add_tokens(self, state: RequestState, completion: CompletionState, now: float) -> None:
        """Count a completion's new tokens; call it before their time is recorded."""
        if state.first_token_s is None:
            self.first_token_s.add(now - state.request.arrival_s)
        if completion.last_token_s is not None:
            self.between_tokens_s.add(now - completion.last_token_s)
        completion.last_token_s = now

    def add_accepted(self, count: int) -> None:
        """Count the drafts of one sequence that a step accepted."""
        for place in range(count):
            self.accepted_at[place] += 1

    def add_request(self, state: RequestState) -> None:
        """Count a request that finished as it should."""
        self.prompt_tokens.add(len(state.request.prompt_token_ids))
        for completion in state.completions:
            self.generated_tokens.add(len(completion.token_ids))
        if state.first_token_s is not None and state.last_token_s is not None:
            self.decode_s.add(state.last_token_s - state.first_token_s)
            self.request_s.add(state.last_token_s - state.request.arrival_s)
