"""The page pool: exact counts whatever is done, and prefixes found only where every token agrees."""

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoestring.engine.pages import PagePool, page_digest
from shoestring.model.memory import PAGE_SIZE, pages_for

PAGES = 8


def ids(first: int, pages: int = 1) -> list[int]:
    return [1000 * first + i for i in range(pages * PAGE_SIZE)]


def weak_digest(parent: bytes, token_ids) -> bytes:
    """A digest with two values: nearly everything collides."""
    return page_digest(parent, token_ids)[:1].translate(bytes(i % 2 for i in range(256)))


class Holder:
    """A sequence as the pool sees it."""

    def __init__(self, token_ids: list[int], salt: str) -> None:
        self.token_ids, self.salt, self.pages, self.links = token_ids, salt, [], []


class PoolMachine(RuleBasedStateMachine):
    """Random sequences from few distinct prefixes; `contents` is what each page's owner wrote into it."""

    digest = staticmethod(page_digest)

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(PAGES, self.digest)
        self.holders: list[Holder] = []
        self.contents: dict[int, tuple] = {}

    @rule(prefix=st.lists(st.integers(0, 1), max_size=4), salt=st.sampled_from(["", "tenant"]))
    def start(self, prefix, salt):
        holder = Holder([token for part in prefix for token in ids(part)], salt)
        links = self.pool.find_prefix(holder.token_ids, salt)
        for number, link in enumerate(links):
            wrote = (salt, tuple(holder.token_ids[: (number + 1) * PAGE_SIZE]))
            assert self.contents[link.page_id] == wrote, "a page of another prefix was found"
        holder.pages, holder.links = self.pool.hold(links), links
        new = self.pool.allocate(len(prefix) - len(links))
        if new is None:
            assert self.pool.num_free < len(prefix) - len(links)
            self.pool.release(holder.pages)
            return
        for page in new:
            held = [p for other in self.holders for p in other.pages]
            assert page not in held, "a page in use was given away"
        holder.pages = holder.pages + new
        for number in range(len(links), len(prefix)):
            wrote = (salt, tuple(holder.token_ids[: (number + 1) * PAGE_SIZE]))
            self.contents[holder.pages[number]] = wrote
        self.holders.append(holder)

    @rule(data=st.data())
    def register(self, data):
        waiting = [h for h in self.holders if len(h.links) < len(h.pages)]
        if waiting:
            holder = data.draw(st.sampled_from(waiting))
            number = len(holder.links)
            part = holder.token_ids[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]
            parent = holder.links[-1] if holder.links else holder.salt
            holder.links.append(self.pool.register(holder.pages[number], part, parent))

    @rule(data=st.data())
    def stop(self, data):
        if self.holders:
            holder = self.holders.pop(data.draw(st.integers(0, len(self.holders) - 1)))
            self.pool.release(holder.pages)

    @rule()
    def forget(self):
        self.pool.reset_prefix_cache()
        assert self.pool.find_prefix(ids(0), "") == []

    @invariant()
    def counts_are_exact(self):
        held = [page for holder in self.holders for page in holder.pages]
        assert self.pool.num_used == len(set(held))
        for page in range(PAGES):
            assert self.pool.num_references(page) == held.count(page)

    def teardown(self):
        for holder in self.holders:
            self.pool.release(holder.pages)
        assert self.pool.num_free == PAGES
        taken = self.pool.allocate(PAGES)
        assert sorted(taken) == list(range(PAGES))


class CollidingMachine(PoolMachine):
    digest = staticmethod(weak_digest)


PoolMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
CollidingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
TestPool = PoolMachine.TestCase
TestPoolWhereDigestsCollide = CollidingMachine.TestCase


def fill(pool: PagePool, token_ids: list[int], salt: str = "") -> list[int]:
    pages = pool.allocate(len(token_ids) // PAGE_SIZE)
    parent = salt
    for number, page in enumerate(pages):
        parent = pool.register(page, token_ids[number * PAGE_SIZE : (number + 1) * PAGE_SIZE], parent)
    return pages


def test_a_prefix_is_found_as_far_as_it_agrees():
    pool = PagePool(8)
    pages = fill(pool, ids(1, 3))
    assert [link.page_id for link in pool.find_prefix([*ids(1, 3), 5], "")] == pages
    assert [link.page_id for link in pool.find_prefix(ids(1, 2) + ids(7), "")] == pages[:2]
    assert pool.find_prefix(ids(1, 3)[: PAGE_SIZE - 1], "") == []
    assert pool.find_prefix(ids(1, 3), "another tenant") == []
    assert pool.find_prefix([0, *ids(1, 3)], "") == []


def test_the_same_page_at_another_place_is_another_prefix():
    pool = PagePool(8)
    fill(pool, ids(1) + ids(2))
    assert pool.find_prefix(ids(2), "") == []


def test_freed_prefixes_are_found_until_reused_longest_unused_first_and_from_their_end():
    pool = PagePool(4)
    old, new = fill(pool, ids(1, 2)), fill(pool, ids(2, 2))
    pool.release(old)
    pool.release(new)
    assert pool.num_free == 4
    assert pool.allocate(1) == [old[1]]
    assert [link.page_id for link in pool.find_prefix(ids(1, 2), "")] == old[:1]
    assert [link.page_id for link in pool.find_prefix(ids(2, 2), "")] == new
    assert pool.allocate(2) == [old[0], new[1]]


def test_a_found_page_is_not_given_away():
    pool = PagePool(2)
    pages = fill(pool, ids(1))
    pool.release(pages)
    assert pool.hold(pool.find_prefix(ids(1), "")) == pages
    assert pool.allocate(2) is None
    assert pool.num_free == 1


def test_releasing_twice_is_our_own_mistake():
    pool = PagePool(1)
    pages = pool.allocate(1)
    pool.release(pages)
    with pytest.raises(AssertionError, match="twice"):
        pool.release(pages)


def test_a_prefix_of_a_million_tokens_is_no_deep_recursion():
    pool = PagePool(5000)
    long = list(range(5000 * PAGE_SIZE))
    pool.release(fill(pool, long))
    assert len(pool.find_prefix(long, "")) == 5000


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (PAGE_SIZE, 1), (PAGE_SIZE + 1, 2)])
def test_pages_for(tokens, pages):
    assert pages_for(tokens) == pages
