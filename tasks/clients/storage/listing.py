"""Listing a big folder of an object store: several sub-folders in parallel, but still in name order.

An object store returns names page by page, and each page costs a round trip. Only names below different prefixes can be
requested in parallel: once a whole page lies in one sub-folder, that sub-folder is big. Its lister continues in it, and
another one starts right after it. A folder without sub-folders is listed page by page: there is no other way.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

PAGE_KEYS = 1000
"""Keys per page: the maximum of every S3 server."""
PAGES_AHEAD = 128
"""Pages buffered of the next part; half as many of the part after it, and so on: some 10 MB in all."""
PARTS_AT_ONCE = 16
LEVELS_AT_ONCE = 4
"""How many nested folders get a part of their own because of one page."""

_LAST = "\U0010ffff"  # no name is likely to begin with it, and all others sort before those that do

Page = tuple[Sequence[str], Sequence[int], Sequence[int]]
"""Keys, their sizes in bytes, and their versions (:func:`tasks.clients.storage.failures.version_of`)."""


class StartAfterIgnored(Exception):
    """The store ignores the key to start after, so it can only be listed from the beginning."""


class NotInOrder(Exception):
    """The store does not list keys in byte order, so a folder cannot be listed in parts."""


@dataclass(eq=False, slots=True)
class _Part:
    """The keys below ``folder`` after those below ``passed``, until they leave ``within``."""

    folder: str
    within: str
    passed: str = ""
    pages: deque[tuple[str, array[int], array[int]]] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None
    error: Exception | None = None
    begun: bool = False
    """Whether a page of it was kept."""
    ended: bool = False
    last: str = ""
    """The last key so far that is not a folder placeholder: placeholders have lost their slash."""


class Listing:
    """One listing of a folder: ``folder`` is empty or ends in a slash.

    ``ask(folder, after)`` yields the pages of a folder after the key ``after`` (None: from its beginning), keys in name
    order, and requests a page only when it is needed. A folder of one page costs one request, and nothing is requested
    ahead before the first page has been used up.
    """

    def __init__(
        self, ask: Callable[[str, str | None], AsyncGenerator[Page]], folder: str, page_keys: int = PAGE_KEYS
    ) -> None:
        self._ask = ask
        self._page_keys = page_keys
        self._parts = [_Part(folder, folder)]  # in name order; the first is being used up
        self._moved = asyncio.Condition()
        self._goes_on = False

    async def pages(self) -> AsyncGenerator[Sequence[tuple[str, int, int]]]:
        """Every key, with its size and version, page by page.

        Raises StartAfterIgnored, NotInOrder, and the exceptions of ``ask``, each when its page is due.
        """
        try:
            while self._parts:
                first = self._parts[0]
                self._start()
                await self._wait(lambda: bool(self._parts[0].pages) or self._parts[0].ended)
                if first.pages:
                    keys, sizes, versions = first.pages[0]
                    yield [*zip(keys.split("\0"), sizes, versions, strict=True)]
                    first.pages.popleft()
                    self._goes_on = True
                elif first.error is not None:
                    raise first.error
                else:
                    del self._parts[0]
                await self._has_moved()
        finally:
            tasks = [part.task for part in self._parts if part.task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        """Start the next listers; always that of the first part, since all others wait for it."""
        running = sum(part.task is not None for part in self._parts)
        for at, part in enumerate(self._parts):
            if part.task is None and (at == 0 or (self._goes_on and running < PARTS_AT_ONCE)):
                part.task = asyncio.create_task(self._list(part))
                running += 1

    async def _wait(self, condition: Callable[[], bool]) -> None:
        async with self._moved:
            await self._moved.wait_for(condition)

    async def _has_moved(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def _list(self, part: _Part) -> None:
        after = part.passed + _LAST if part.passed else None
        try:
            async with aclosing(self._ask(part.folder, after)) as pages:
                begun = False
                async for page in pages:
                    keys = page[0]
                    if (
                        not begun
                        and keys
                        and part.passed
                        and (keys[0] <= part.passed or keys[0].startswith(part.passed))
                    ):
                        raise StartAfterIgnored
                    begun = True
                    if self._take(part, page):
                        break
                    await self._has_moved()
                    await self._wait(lambda: self._may_go_on(part))
        except Exception as error:
            part.error = error
        part.ended = True
        await self._has_moved()

    def _may_go_on(self, part: _Part) -> bool:
        # A page with only the folder's own placeholder is not kept, and so never used up.
        return (self._goes_on or not part.begun) and len(part.pages) < max(
            2, PAGES_AHEAD >> min(30, self._parts.index(part))
        )

    def _take(self, part: _Part, page: Page) -> bool:
        """Keep a page until it is due; whether the part ends with it."""
        keys, sizes, _ = page
        if not keys:
            return False
        ordered = [part.last, *(key for key, size in zip(keys, sizes, strict=True) if size)]
        if any(one > f"{other}/" for one, other in pairwise(ordered)):  # a placeholder's slash is lost
            raise NotInOrder
        part.last = ordered[-1]
        within = part.within
        ended = keys[-1] > within and not keys[-1].startswith(within)
        own: Sequence[Sequence[Any]] = page
        if ended or not keys[0].startswith(within):
            own = [*zip(*(one for one in zip(*page, strict=True) if one[0].startswith(within)), strict=True)]
        if own:
            # Packed, a page takes a third of the memory. (A key contains no NUL, which XML cannot represent.)
            part.begun = True
            part.pages.append(("\0".join(own[0]), array("q", own[1]), array("q", own[2])))
        if not ended and 2 < self._page_keys <= len(keys):
            self._split(part, keys[1], keys[-1])  # the first key may be the folder's own placeholder
        return ended

    def _split(self, part: _Part, first: str, last: str) -> None:
        """Continue only in the folder that these keys share, which is big; new parts list the keys after it."""
        levels = [part.within]
        while len(levels) <= LEVELS_AT_ONCE and (end := first.find("/", len(levels[-1])) + 1):
            if not last.startswith(first[:end]):
                break
            levels.append(first[:end])
        if len(levels) == 1:
            return
        part.within = levels[-1]
        at = self._parts.index(part) + 1
        self._parts[at:at] = [_Part(folder, folder, passed) for folder, passed in reversed([*pairwise(levels)])]
        if self._goes_on:
            self._start()
