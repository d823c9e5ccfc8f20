"""Pages of the cache: allocation, reference counts, and prefixes that requests share (no torch)."""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shoestring.model.memory import PAGE_SIZE

Digest = bytes


def page_digest(parent: Digest, token_ids: Sequence[int]) -> Digest:
    """SHA-256 over the digest of everything before a page and the page's ids."""
    return hashlib.sha256(parent + array("q", token_ids).tobytes()).digest()


def root_digest(cache_salt: str) -> Digest:
    """The parent of a first page: tenants with other salts never meet."""
    return hashlib.sha256(b"shoestring prefix" + cache_salt.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A registered full page: its tokens, and the link (or salt) before it. Equal only to itself."""

    page: int
    digest: Digest
    token_ids: tuple[int, ...]
    parent: "Link | str"


class PagePool:
    """A fixed number of pages, each free, in use by one or more sequences, or free but still findable.

    A freed page that holds a registered prefix stays findable until it is reused, longest unused first.
    """

    def __init__(
        self, num_pages: int, digest: Callable[[Digest, Sequence[int]], Digest] = page_digest
    ) -> None:
        self.num_pages = num_pages
        self._digest = digest
        self._blank = list(range(num_pages - 1, -1, -1))  # a stack: touched memory is used again first
        self._findable: OrderedDict[int, None] = OrderedDict()  # free, but holding a registered prefix
        self._references = [0] * num_pages
        self._links: dict[Digest, Link] = {}
        self._link_of: dict[int, Link] = {}

    @property
    def num_free(self) -> int:
        return len(self._blank) + len(self._findable)

    @property
    def num_used(self) -> int:
        return self.num_pages - self.num_free

    def references(self, page: int) -> int:
        """How many sequences hold this page."""
        return self._references[page]

    def allocate(self, count: int) -> list[int] | None:
        """So many pages with one reference each; None, changing nothing, when there are not enough."""
        if count > self.num_free:
            return None
        pages = []
        for _ in range(count):
            if self._blank:
                page = self._blank.pop()
            else:
                page, _ = self._findable.popitem(last=False)
                self._forget(page)
            self._references[page] = 1
            pages.append(page)
        return pages

    def release(self, pages: Sequence[int]) -> None:
        """Give up one reference to each page of a sequence; a prefix is reused from its end."""
        for page in reversed(pages):
            assert self._references[page] > 0, f"page {page} was released twice"
            self._references[page] -= 1
            if self._references[page]:
                continue
            if page in self._link_of:
                self._findable[page] = None
            else:
                self._blank.append(page)

    def find(self, token_ids: Sequence[int], cache_salt: str) -> list[Link]:
        """The links of the longest registered prefix of whole pages; takes no references."""
        found: list[Link] = []
        parent: Link | str = cache_salt
        digest = root_digest(cache_salt)
        for start in range(0, len(token_ids) - PAGE_SIZE + 1, PAGE_SIZE):
            ids = tuple(token_ids[start : start + PAGE_SIZE])
            digest = self._digest(digest, ids)
            link = self._links.get(digest)
            # Comparing the tokens and what came before makes a collision of digests a miss.
            if link is None or link.token_ids != ids or link.parent != parent:
                break
            found.append(link)
            parent = link
        return found

    def hold(self, links: Sequence[Link]) -> list[int]:
        """Take a reference to each found page."""
        for link in links:
            if not self._references[link.page]:
                del self._findable[link.page]
            self._references[link.page] += 1
        return [link.page for link in links]

    def register(self, page: int, token_ids: Sequence[int], parent: Link | str) -> Link:
        """Make a held full page findable after `parent`: its link, or an equal page's that was first."""
        assert self._references[page] > 0
        assert len(token_ids) == PAGE_SIZE
        before = parent.digest if isinstance(parent, Link) else root_digest(parent)
        ids = tuple(token_ids)
        digest = self._digest(before, ids)
        known = self._links.get(digest)
        if known is not None and known.token_ids == ids and known.parent == parent:
            return known
        if known is not None:  # a collision, or a link whose parent page is gone
            self._unlink(known)
        self._links[digest] = self._link_of[page] = link = Link(page, digest, ids, parent)
        return link

    def forget_all(self) -> None:
        """No prefix can be found any more; sequences keep their pages."""
        self._links.clear()
        self._link_of.clear()
        self._blank.extend(self._findable)
        self._findable.clear()

    def _unlink(self, link: Link) -> None:
        del self._links[link.digest]
        del self._link_of[link.page]
        if link.page in self._findable:
            del self._findable[link.page]
            self._blank.append(link.page)

    def _forget(self, page: int) -> None:
        link = self._link_of.pop(page)
        del self._links[link.digest]
