"""The scheduler: queues of sequences -> the next batch, within pages and a token budget (no torch)."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from shoestring.engine.pages import PagePool
from shoestring.engine.sequence import Sequence
from shoestring.model.memory import PAGE_SIZE, pages_for


@dataclass(slots=True, eq=False)  # not frozen: one is made for each token
class ScheduledSequence:
    """Rows of one sequence in a batch: `count` tokens from position `start`, the last ones being drafts."""

    sequence: Sequence
    start: int
    count: int
    drafts: tuple[int, ...]
    num_sampled: int
    """Rows whose next token is to be chosen: none before the end of the known tokens."""

    @classmethod
    def next(cls, sequence: Sequence, count: int, drafts: tuple[int, ...] = ()) -> "ScheduledSequence":
        """The next `count` known tokens of a sequence, and drafts behind the last of them."""
        num_sampled = 1 + len(drafts) if count == sequence.remaining else 0
        return cls(sequence, sequence.computed, count + len(drafts), drafts, num_sampled)

    def ids(self) -> list[int]:
        """The tokens of its rows."""
        known = self.sequence.token_ids[self.start : self.start + self.count - len(self.drafts)]
        return [*known, *self.drafts]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step runs."""

    scheduled: tuple[ScheduledSequence, ...]

    @property
    def num_rows(self) -> int:
        return sum(item.count for item in self.scheduled)

    @property
    def decoding_only(self) -> bool:
        """Whether every sequence runs only its newest token and drafts."""
        return all(item.count == 1 + len(item.drafts) == item.num_sampled for item in self.scheduled)


@dataclass(slots=True)
class SchedulerCounters:
    """Totals since the scheduler was made."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    preemptions: int = 0


class Scheduler:
    """Running sequences, oldest first, and a queue of waiting ones; both hold pages of one pool only while
    they run.

    Decoding comes before prompts, old before young. When pages run out the youngest running sequence gives
    its pages back and is computed again later, prompt and output as one prompt.
    """

    def __init__(
        self,
        pool: PagePool,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        enable_prefix_caching: bool = True,
    ) -> None:
        self.pool = pool
        self.max_num_batched_tokens = max_num_batched_tokens
        self.enable_prefix_caching = enable_prefix_caching
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.counters = SchedulerCounters()
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._blocked: tuple[Sequence, int] | None = None  # who did not fit, and the free pages there were

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; its `max_length` must fit into the pool."""
        assert pages_for(sequence.max_length) <= self.pool.num_pages
        self.waiting.append(sequence)

    def next_batch(self) -> Batch:
        """The rows to run now; empty when nothing is unfinished."""
        chosen: dict[Sequence, ScheduledSequence] = {}
        budget = self._decode(chosen)
        budget = self._continue_prompts(chosen, budget)
        self._admit(chosen, budget)
        return Batch(tuple(chosen.values()))

    def commit(self, batch: Batch, new_ids: Mapping[Sequence, list[int]]) -> None:
        """Append what was sampled and accepted; entries of rejected drafts count as not computed."""
        for item in batch.scheduled:
            sequence, ids = item.sequence, new_ids.get(item.sequence, [])
            if not sequence.running:  # it was finished or aborted meanwhile
                continue
            sequence.token_ids += ids
            known = len(sequence.token_ids)
            sequence.computed = known - 1 if ids else min(item.start + item.count, known)
            self.counters.computed_tokens += item.count
            if self.enable_prefix_caching and sequence.computed >= (len(sequence.links) + 1) * PAGE_SIZE:
                self._register(sequence)

    def finish(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and free its pages."""
        if sequence.running:
            self.running.remove(sequence)
            self._free(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)

    def reserve(self, sequence: Sequence, length: int) -> bool:
        """Pages for drafts at positions below `length`, if more are free than running sequences may need."""
        need = max(pages_for(length) - len(sequence.pages), 0)
        return need == 0 or (
            self.pool.num_free - need >= len(self.running) and self._extend(sequence, length)
        )

    def restart(self) -> None:
        """Compute everything again, sharing nothing that was computed before: the weights changed."""
        for sequence in reversed(self.running.copy()):
            self._preempt(sequence)
        self.pool.forget_all()

    def _decode(self, chosen: dict[Sequence, ScheduledSequence]) -> int:
        """Each decoding sequence's newest token and drafts; returns the budget that is left."""
        decoding = [sequence for sequence in self.running if sequence.remaining == 1]
        spare = self.max_num_batched_tokens - len(decoding)
        for sequence in decoding:
            if not sequence.running:  # preempted for an older one
                spare += 1
                continue
            drafts: tuple[int, ...] = ()
            if sequence.drafts:
                room = min(spare, sequence.max_length - len(sequence.token_ids) - 1)
                drafts, sequence.drafts = tuple(sequence.drafts[:room]), []
            if not self._make_room(sequence):
                spare += 1
                continue
            if drafts and not self.reserve(sequence, len(sequence.token_ids) + len(drafts)):
                drafts = ()
            spare -= len(drafts)
            chosen[sequence] = ScheduledSequence.next(sequence, 1, drafts)
        return spare

    def _continue_prompts(self, chosen: dict[Sequence, ScheduledSequence], budget: int) -> int:
        """The next piece of every prompt that has begun."""
        for sequence in [sequence for sequence in self.running if sequence.remaining > 1]:
            if budget <= 0:
                break
            budget -= self._choose(sequence, budget, chosen)
        return budget

    def _admit(self, chosen: dict[Sequence, ScheduledSequence], budget: int) -> None:
        """Start waiting sequences, first come first served, while rows, pages and budget last."""
        passed: list[Sequence] = []
        while self.waiting and self._free_rows and budget > 0:
            sequence = self.waiting[0]
            leader = sequence.leader
            if leader is not None and leader.running and leader.computed < leader.prompt_length:
                passed.append(self.waiting.popleft())  # wait for the pages of the same prompt
                continue
            if not self._start(sequence):
                break
            self.waiting.popleft()
            budget -= self._choose(sequence, budget, chosen)
        self.waiting.extendleft(reversed(passed))

    def _start(self, sequence: Sequence) -> bool:
        """Give a waiting sequence a row, the pages of its known prefix, and the rest of its pages."""
        if self._blocked is not None:
            blocked, free = self._blocked
            if blocked is sequence and self.pool.num_free <= free:
                return False
        length = len(sequence.token_ids)
        links = self.pool.find(sequence.token_ids[: length - 1], sequence.request.cache_salt)
        sequence.pages = self.pool.hold(links)
        spare = self.pool.num_free - len(self.running) // 4  # else it would soon have to give way again
        need = pages_for(length) - len(links)
        if (self.running and need > spare) or not self._extend(sequence, length):
            self.pool.release(sequence.pages)
            sequence.pages = []
            self._blocked = (sequence, self.pool.num_free)
            return False
        sequence.links = links
        sequence.computed = sequence.admitted_at = len(links) * PAGE_SIZE
        sequence.row = self._free_rows.pop()
        if not sequence.admissions:
            sequence.cached_tokens = min(sequence.computed, sequence.prompt_length)
            self.counters.prompt_tokens += sequence.prompt_length
            self.counters.cached_tokens += sequence.cached_tokens
        sequence.admissions += 1
        self.running.append(sequence)
        return True

    def _choose(self, sequence: Sequence, budget: int, chosen: dict[Sequence, ScheduledSequence]) -> int:
        """The next piece of a prompt, whose pages it has held since it was admitted."""
        count = min(sequence.remaining, budget)
        chosen[sequence] = ScheduledSequence.next(sequence, count)
        return count

    def _make_room(self, sequence: Sequence) -> bool:
        """A page for a decoding sequence's newest token, taken from the youngest running sequence if there is
        none; False when that is the sequence itself."""
        while not self._extend(sequence, len(sequence.token_ids)):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def _extend(self, sequence: Sequence, length: int) -> bool:
        """Pages for positions below `length`; False when there are not enough."""
        need = pages_for(length) - len(sequence.pages)
        if need <= 0:
            return True
        pages = self.pool.allocate(need)
        sequence.pages += pages or ()
        return pages is not None

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._free(sequence)
        self.waiting.appendleft(sequence)
        self.counters.preemptions += 1

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.pages)
        self._free_rows.append(sequence.row)
        sequence.pages, sequence.links, sequence.drafts = [], [], []
        sequence.computed, sequence.row = 0, -1

    def _register(self, sequence: Sequence) -> None:
        """Make the pages that became full findable."""
        for index in range(len(sequence.links), sequence.computed // PAGE_SIZE):
            ids = sequence.token_ids[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
            parent = sequence.links[-1] if sequence.links else sequence.request.cache_salt
            sequence.links.append(self.pool.register(sequence.pages[index], ids, parent))
