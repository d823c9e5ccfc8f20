"""The scheduler: queues of sequences -> the next batch, within pages and a token budget (no torch)."""

import statistics
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from shoestring.engine.pages import PagePool
from shoestring.engine.sequence import Failures, Sequence
from shoestring.model.memory import PAGE_SIZE, pages_for


@dataclass(slots=True, eq=False)  # not frozen: one is made for each token
class ScheduledSequence:
    """Rows of one sequence in a batch: `count` tokens from position `start`, the last ones being drafts."""

    sequence: Sequence
    start: int
    count: int
    drafts: tuple[int, ...]
    num_sampled: int
    """Rows whose next token is sampled: none before the end of the tokens so far."""

    @classmethod
    def next(cls, sequence: Sequence, count: int, drafts: tuple[int, ...] = ()) -> "ScheduledSequence":
        """The next `count` tokens of a sequence, and drafts behind the last of them."""
        num_sampled = 1 + len(drafts) if count == sequence.num_uncomputed_tokens else 0
        return cls(sequence, sequence.num_computed_tokens, count + len(drafts), drafts, num_sampled)

    @property
    def is_decode(self) -> bool:
        """Return whether it runs only its newest token and drafts."""
        return self.count == 1 + len(self.drafts) == self.num_sampled

    def ids(self) -> list[int]:
        """The tokens of its rows."""
        token_ids = self.sequence.token_ids[self.start : self.start + self.count - len(self.drafts)]
        return [*token_ids, *self.drafts]


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of one step."""

    items: tuple[ScheduledSequence, ...]
    page_copies: tuple[tuple[int, int], ...] = ()
    """Pages to copy before it runs, each to another."""

    @property
    def num_rows(self) -> int:
        return sum(item.count for item in self.items)

    @property
    def is_decode_only(self) -> bool:
        """Return whether every sequence runs only its newest token and drafts."""
        return all(item.is_decode for item in self.items)


Items = dict[Sequence, ScheduledSequence]


@dataclass(slots=True)
class SchedulerCounters:
    """Totals since the scheduler was made."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    computed_tokens: int = 0
    preemptions: int = 0


class PromptPace:
    """Rows of prompts that a step may have beside decoding sequences, from the times of steps so far.

    `share` is the part of a step's time that they may take. Times of steps without prompts are known by the
    number of decoding sequences, up to a power of two; where none is, or an old one, the next step has no
    prompts. A row takes as long as in the slowest of the last few steps: times vary, and rows that follow one
    quick step would make a long one.
    """

    LEAST_ROWS, FIRST_ROWS, MEMORY, REFRESH_STEPS = 4, 32, 8, 64
    SLOWEST_OF = 3

    def __init__(self, share: float) -> None:
        self.share = share
        self._plain_s: dict[int, deque[float]] = {}
        self._num_mixed: dict[int, int] = {}  # steps with prompts since the last one without
        self._rows = 0  # of the last step with prompts
        self._row_s: deque[float] = deque(maxlen=self.SLOWEST_OF)

    def rows(self, num_decoding: int, most: int) -> int:
        """Rows of prompts, at most `most`, for a step with so many decoding sequences."""
        size = num_decoding.bit_length()
        if not num_decoding or self.share >= 1:
            return most
        if size not in self._plain_s or self._num_mixed[size] >= self.REFRESH_STEPS:
            return 0
        if not self._rows:
            return min(self.FIRST_ROWS, most)
        seconds = self.share / (1 - self.share) * statistics.median(self._plain_s[size])
        rows = int(min(seconds / max(self._row_s), 2 * self._rows))
        return min(max(rows, self.LEAST_ROWS), most)

    def record(self, batch: Batch, seconds: float) -> None:
        """Add the time that a step took."""
        rows = sum(item.count for item in batch.items if not item.is_decode)
        self.add(sum(item.is_decode for item in batch.items), rows, seconds)

    def add(self, num_decoding: int, rows: int, seconds: float) -> None:
        """Add the time of a step with so many decoding sequences, and so many rows of prompts."""
        size = num_decoding.bit_length()
        if num_decoding and not rows:
            self._plain_s.setdefault(size, deque(maxlen=self.MEMORY)).append(seconds)
            self._num_mixed[size] = 0
        elif size in self._plain_s:
            self._num_mixed[size] += 1
            if rows >= self.LEAST_ROWS:  # the fixed costs of a few would count as those of each
                plain_s = statistics.median(self._plain_s[size])
                self._rows = rows
                self._row_s.append(max(seconds - plain_s, plain_s / 8) / rows)


class Scheduler:
    """Running sequences, oldest first, and a queue of waiting ones, which hold no pages.

    Decoding comes before prompts, old sequences before young ones. When no page is free the youngest running
    sequence is preempted: it releases its pages and is computed again later, prompt and output as one prompt.
    A sequence for which something raises leaves the scheduler, and is in `failures`.
    """

    def __init__(
        self,
        pool: PagePool,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        enable_prefix_caching: bool = True,
        prompt_share: float = 1.0,
    ) -> None:
        self.pool, self.pace = pool, PromptPace(prompt_share)
        self.max_num_batched_tokens = max_num_batched_tokens
        self.enable_prefix_caching = enable_prefix_caching
        self.running: list[Sequence] = []
        self.waiting: deque[Sequence] = deque()
        self.counters = SchedulerCounters()
        self.failures = Failures()
        self._free_rows = list(range(max_num_seqs - 1, -1, -1))
        self._page_copies: list[tuple[int, int]] = []  # of the next batch
        # The sequence that last did not fit, and the number of free pages then.
        self._last_misfit: tuple[Sequence, int] | None = None

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence; its `max_length` must fit into the pool."""
        assert pages_for(sequence.max_length) <= self.pool.num_pages
        self.waiting.append(sequence)

    @property
    def only_decodes(self) -> bool:
        """Return whether the next batch has the newest token of every running sequence, and nothing else."""
        return not self.may_admit and all(each.num_uncomputed_tokens == 1 for each in self.running)

    @property
    def may_admit(self) -> bool:
        """Return whether a waiting sequence may start with the next batch, if there are pages for it."""
        return bool(self.waiting and self._free_rows)

    def next_batch(self) -> Batch:
        """The rows to run now; empty when nothing is unfinished."""
        items: Items = {}
        budget = self._decode(items)
        budget = self.pace.rows(len(items), budget)
        budget = self._continue_prompts(items, budget)
        self._admit(items, budget)
        copies, self._page_copies = tuple(self._page_copies), []
        return Batch(tuple(items.values()), copies)

    def commit(self, batch: Batch, new_ids: Mapping[Sequence, list[int]]) -> None:
        """Append the accepted tokens; cache entries of rejected drafts count as not computed."""
        for item in batch.items:
            if item.sequence.is_running:  # neither finished nor aborted meanwhile
                try:
                    self._commit(item, new_ids.get(item.sequence, []))
                except Exception as error:
                    self._fail(item.sequence, error)

    def finish(self, sequence: Sequence) -> None:
        """Remove a sequence, running or waiting, and free its pages; nothing happens if it is neither."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
        if sequence.is_running:
            self.running.remove(sequence)
        self._free(sequence)

    def reserve(self, sequence: Sequence, length: int) -> bool:
        """Allocate pages for drafts below position `length`, if running sequences do not need them."""
        need = max(pages_for(length) - len(sequence.page_ids), 0)
        return need == 0 or (self.pool.num_free - need >= len(self.running) and self.extend(sequence, length))

    def append(self, sequence: Sequence, ids: list[int]) -> None:
        """Append tokens of a running sequence, all but the last computed; share pages that became full."""
        sequence.token_ids += ids
        sequence.num_computed_tokens = len(sequence.token_ids) - 1
        self._share(sequence)

    def restart(self) -> None:
        """Compute everything again with new weights, sharing no page that was computed before."""
        for sequence in reversed(self.running.copy()):
            self._preempt(sequence)
        self.pool.reset_prefix_cache()

    def _decode(self, items: Items) -> int:
        """Schedule each decoding sequence's newest token and drafts; returns the remaining budget."""
        decoding = [sequence for sequence in self.running if sequence.num_uncomputed_tokens == 1]
        spare = self.max_num_batched_tokens - len(decoding)
        for sequence in decoding:
            try:
                item = self._next_row(sequence, spare) if sequence.is_running else None
            except Exception as error:
                self._fail(sequence, error)
                item = None
            if item is None:  # preempted or failed
                spare += 1
            else:
                spare -= len(item.drafts)
                items[sequence] = item
        return spare

    def _next_row(self, sequence: Sequence, spare: int) -> ScheduledSequence | None:
        """The newest token with at most `spare` drafts; None when the sequence had to be preempted."""
        drafts: tuple[int, ...] = ()
        if sequence.drafts:
            room = min(spare, sequence.max_length - len(sequence.token_ids) - 1)
            drafts, sequence.drafts = tuple(sequence.drafts[:room]), []
        if not self._make_room(sequence):
            return None
        if drafts and not self.reserve(sequence, len(sequence.token_ids) + len(drafts)):
            drafts = ()
        return ScheduledSequence.next(sequence, 1, drafts)

    def _continue_prompts(self, items: Items, budget: int) -> int:
        """Schedule the next piece of every prompt that has begun; returns the remaining budget."""
        for sequence in [sequence for sequence in self.running if sequence.num_uncomputed_tokens > 1]:
            if budget <= 0:
                break
            try:
                budget -= self._schedule_prompt(sequence, budget, items)
            except Exception as error:
                self._fail(sequence, error)
        return budget

    def _admit(self, items: Items, budget: int) -> None:
        """Start waiting sequences, first come first served, while rows, pages and budget last."""
        followers: list[Sequence] = []  # wait for the pages of the same prompt
        while self.waiting and self._free_rows and budget > 0:
            sequence = self.waiting[0]
            leader = sequence.leader
            if leader is not None and leader.is_running and not leader.has_computed_prompt:
                followers.append(self.waiting.popleft())
                continue
            try:
                if not self._start(sequence):
                    break
                self.waiting.popleft()
                budget -= self._schedule_prompt(sequence, budget, items)
            except Exception as error:
                self._fail(sequence, error)
        self.waiting.extendleft(reversed(followers))

    def _start(self, sequence: Sequence) -> bool:
        """Give a waiting sequence a row and pages, those of its cached prefix first; False without enough."""
        if self._last_misfit is not None:
            misfit, num_free = self._last_misfit
            if misfit is sequence and self.pool.num_free <= num_free:
                return False
        length = len(sequence.token_ids)
        shared = [] if sequence.needs_whole_prompt else sequence.token_ids[: length - 1]
        prefix = self.pool.find_prefix(shared, sequence.request.prefix_salt)
        sequence.page_ids = self.pool.hold(prefix)
        spare = self.pool.num_free - len(self.running) // 4  # else it would soon be preempted
        need = pages_for(length) - len(prefix)
        if (self.running and need > spare) or not self.extend(sequence, length):
            self.pool.release(sequence.page_ids)
            sequence.page_ids = []
            self._last_misfit = (sequence, self.pool.num_free)
            return False
        sequence.cached_pages = prefix
        sequence.num_computed_tokens = len(prefix) * PAGE_SIZE
        self._copy_from_leader(sequence)
        sequence.first_computed = sequence.num_computed_tokens
        sequence.table_row = self._free_rows.pop()
        self.running.append(sequence)
        if not sequence.num_admissions:
            sequence.num_cached_tokens = min(sequence.num_computed_tokens, sequence.num_prompt_tokens)
            self.counters.prompt_tokens += sequence.num_prompt_tokens
            self.counters.cached_tokens += sequence.num_cached_tokens
        sequence.num_admissions += 1
        return True

    def _copy_from_leader(self, sequence: Sequence) -> None:
        """Copy the entries behind its last shared page, where the leader has computed the same prompt."""
        leader, place = sequence.leader, len(sequence.cached_pages)
        num_copied = sequence.num_prompt_tokens - 1 - place * PAGE_SIZE  # the last token's logits are needed
        if leader is None or not leader.has_computed_prompt or sequence.num_output_tokens:
            return
        if self.enable_prefix_caching and 0 < num_copied < PAGE_SIZE:
            self._page_copies.append((leader.page_ids[place], sequence.page_ids[place]))
            sequence.num_computed_tokens += num_copied

    def _schedule_prompt(self, sequence: Sequence, budget: int, items: Items) -> int:
        """Schedule the next piece of a prompt, which has all its pages; returns its number of tokens."""
        count = min(sequence.num_uncomputed_tokens, budget)
        items[sequence] = ScheduledSequence.next(sequence, count)
        return count

    def _make_room(self, sequence: Sequence) -> bool:
        """Allocate a page for a decoding sequence's newest token, preempting the youngest running sequence if
        none is free; False when that is the sequence itself."""
        while not self.extend(sequence, len(sequence.token_ids)):
            victim = self.running[-1]
            self._preempt(victim)
            if victim is sequence:
                return False
        return True

    def extend(self, sequence: Sequence, length: int) -> bool:
        """Allocate pages for positions below `length`; False when there are not enough."""
        need = pages_for(length) - len(sequence.page_ids)
        if need <= 0:
            return True
        page_ids = self.pool.allocate(need)
        sequence.page_ids += page_ids or ()
        return page_ids is not None

    def _preempt(self, sequence: Sequence) -> None:
        self.running.remove(sequence)
        self._free(sequence)
        self.waiting.appendleft(sequence)
        self.counters.preemptions += 1

    def _fail(self, sequence: Sequence, error: Exception) -> None:
        self.failures.add(sequence, error)
        self.finish(sequence)

    def _free(self, sequence: Sequence) -> None:
        self.pool.release(sequence.page_ids)
        if sequence.is_running:
            self._free_rows.append(sequence.table_row)
        sequence.page_ids, sequence.cached_pages, sequence.drafts = [], [], []
        sequence.num_computed_tokens, sequence.table_row = 0, -1

    def _commit(self, item: ScheduledSequence, ids: list[int]) -> None:
        """Append a sequence's accepted tokens, and share its pages that became full."""
        sequence = item.sequence
        sequence.token_ids += ids
        length = len(sequence.token_ids)
        sequence.num_computed_tokens = length - 1 if ids else min(item.start + item.count, length)
        self.counters.computed_tokens += item.count
        self._share(sequence)

    def _share(self, sequence: Sequence) -> None:
        """Put the pages that became full into the prefix cache."""
        num_full_pages = sequence.num_computed_tokens // PAGE_SIZE
        if self.enable_prefix_caching and num_full_pages > len(sequence.cached_pages):
            self._register(sequence, num_full_pages)

    def _register(self, sequence: Sequence, num_full_pages: int) -> None:
        for index in range(len(sequence.cached_pages), num_full_pages):
            ids = sequence.token_ids[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]
            parent = sequence.cached_pages[-1] if sequence.cached_pages else sequence.request.prefix_salt
            sequence.cached_pages.append(self.pool.register(sequence.page_ids[index], ids, parent))
