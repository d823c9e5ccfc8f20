"""Pages of the KV cache: allocation, reference counts, and the prefixes that requests share (no torch)."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shoestring.model.memory import PAGE_SIZE

Digest = bytes


def page_digest(parent: Digest, token_ids: Sequence[int]) -> Digest:
    """SHA-256 over the digest of all pages before this one and this page's ids."""
    return hashlib.sha256(parent + array("q", token_ids).tobytes()).digest()


def root_digest(cache_salt: str) -> Digest:
    """The digest before a first page: requests with another salt never share it."""
    return hashlib.sha256(b"shoestring prefix" + cache_salt.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True, eq=False)
class CachedPage:
    """A full page in the prefix cache: its tokens, and the page (or salt) before it. Equal only to itself."""

    page_id: int
    digest: Digest
    token_ids: tuple[int, ...]
    parent: "CachedPage | str"


class PagePool:
    """A fixed number of pages, each free, in use by one or more sequences, or free but still cached.

    A free page that holds a cached prefix stays in the prefix cache until it is reused, the least recently
    used one first.
    """

    def __init__(
        self, num_pages: int, digest: Callable[[Digest, Sequence[int]], Digest] = page_digest
    ) -> None:
        self.num_pages = num_pages
        self._digest = digest
        self._empty_ids = list(range(num_pages - 1, -1, -1))  # a stack: memory in use is used again first
        self._free_cached_ids: OrderedDict[int, None] = OrderedDict()  # free, but in the prefix cache
        self._num_references = [0] * num_pages
        self._by_digest: dict[Digest, CachedPage] = {}
        self._by_id: dict[int, CachedPage] = {}

    @property
    def num_free(self) -> int:
        return len(self._empty_ids) + len(self._free_cached_ids)

    @property
    def num_used(self) -> int:
        return self.num_pages - self.num_free

    def num_references(self, page_id: int) -> int:
        """The number of sequences that use this page."""
        return self._num_references[page_id]

    def allocate(self, count: int) -> list[int] | None:
        """`count` page ids with one reference each; None, changing nothing, if fewer are free."""
        if count > self.num_free:
            return None
        page_ids = []
        for _ in range(count):
            if self._empty_ids:
                page_id = self._empty_ids.pop()
            else:
                page_id, _ = self._free_cached_ids.popitem(last=False)
                self._evict(page_id)
            self._num_references[page_id] = 1
            page_ids.append(page_id)
        return page_ids

    def release(self, page_ids: Sequence[int]) -> None:
        """Drop one reference to each page of a sequence; a prefix is reused from its end."""
        for page_id in reversed(page_ids):
            assert self._num_references[page_id] > 0, f"page {page_id} was released twice"
            self._num_references[page_id] -= 1
            if self._num_references[page_id]:
                continue
            if page_id in self._by_id:
                self._free_cached_ids[page_id] = None
            else:
                self._empty_ids.append(page_id)

    def find_prefix(self, token_ids: Sequence[int], cache_salt: str) -> list[CachedPage]:
        """The longest cached prefix of whole pages; takes no references."""
        pages: list[CachedPage] = []
        parent: CachedPage | str = cache_salt
        digest = root_digest(cache_salt)
        for start in range(0, len(token_ids) - PAGE_SIZE + 1, PAGE_SIZE):
            ids = tuple(token_ids[start : start + PAGE_SIZE])
            digest = self._digest(digest, ids)
            page = self._by_digest.get(digest)
            # Comparing the tokens and the page before makes a collision of digests a miss.
            if page is None or page.token_ids != ids or page.parent != parent:
                break
            pages.append(page)
            parent = page
        return pages

    def hold(self, pages: Sequence[CachedPage]) -> list[int]:
        """Take a reference to each cached page; returns their ids."""
        for page in pages:
            if not self._num_references[page.page_id]:
                del self._free_cached_ids[page.page_id]
            self._num_references[page.page_id] += 1
        return [page.page_id for page in pages]

    def register(self, page_id: int, token_ids: Sequence[int], parent: CachedPage | str) -> CachedPage:
        """Cache a full page in use after `parent`; returns it, or an equal page that was there first."""
        assert self._num_references[page_id] > 0
        assert len(token_ids) == PAGE_SIZE
        before = parent.digest if isinstance(parent, CachedPage) else root_digest(parent)
        ids = tuple(token_ids)
        digest = self._digest(before, ids)
        other = self._by_digest.get(digest)
        if other is not None and other.token_ids == ids and other.parent == parent:
            return other
        if other is not None:  # a collision, or a page whose parent is gone
            self._uncache(other)
        page = CachedPage(page_id, digest, ids, parent)
        self._by_digest[digest] = self._by_id[page_id] = page
        return page

    def reset_prefix_cache(self) -> None:
        """Empty the prefix cache; sequences keep their pages."""
        self._by_digest.clear()
        self._by_id.clear()
        self._empty_ids.extend(self._free_cached_ids)
        self._free_cached_ids.clear()

    def _uncache(self, page: CachedPage) -> None:
        del self._by_digest[page.digest]
        del self._by_id[page.page_id]
        if page.page_id in self._free_cached_ids:
            del self._free_cached_ids[page.page_id]
            self._empty_ids.append(page.page_id)

    def _evict(self, page_id: int) -> None:
        page = self._by_id.pop(page_id)
        del self._by_digest[page.digest]
