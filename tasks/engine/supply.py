"""The items of a shard that are not begun yet: taken one by one, and handed back from the tail."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate

from tasks.domain.item import Item
from tasks.domain.outage import elsewhere
from tasks.domain.run import ShardRef
from tasks.domain.shard import weight


class Supply:
    """Gives out a shard's items in order; items that are not begun may be handed back for another instance.

    ``shard`` is the part of the shard that is left here: it ends before the first item handed back.
    """

    def __init__(self, shard: ShardRef, items: Sequence[Item]) -> None:
        self.shard = shard
        self._items = items
        self._next = 0
        self._end = len(items)
        self._early: set[int] = set()
        """Places of items that were begun out of order."""
        self._before = array("q", accumulate(map(weight, items), initial=0))
        """Total weight of the items before each place: cutting a shard of 100,000 items must not hold up others."""

    @property
    def left(self) -> int:
        """Number of items that are not begun yet."""
        return self._end - self._next - len(self._early)

    @property
    def weight(self) -> int:
        """Total weight of the items that are not begun yet."""
        early = sum(weight(self._items[place]) for place in self._early)
        return self._before[self._end] - self._before[self._next] - early

    def take(self, probes: int = 0) -> Item | None:
        """Begin the next item, or after that many ``probes``, if any, one from elsewhere; None if no item is left."""
        if not self.left:
            return None
        place = self._next
        if probes:
            place += elsewhere(probes, self._end - place)
            while place in self._early:
                place = place + 1 if place + 1 < self._end else self._next
        self._early.add(place)
        while self._next in self._early:
            self._early.remove(self._next)
            self._next += 1
        return self._items[place]

    def hand_back(self, share: float, pieces: int) -> list[ShardRef]:
        """Hand back the last items that are not begun yet, about ``share`` (0-1) of their weight, in ``pieces``.

        The pieces have about equal weight; there are fewer if there are not enough items.
        """
        # One item stays, so that no piece begins at the first item of this shard, which names its report.
        stays = self.left > 0 and self._items[self._next].number == self.shard.first_item
        first, end = max(self._next + stays, max(self._early, default=-1) + 1), self._end
        if first >= end or share <= 0:
            return []
        cuts = [self._cut(self._before[end] - share * self.weight, first, end - 1)]
        while cuts[-1] < end:
            there = self._before[cuts[-1]]
            each = (self._before[end] - there) / max(1, pieces + 1 - len(cuts))
            cuts.append(self._cut(there + each, cuts[-1] + 1, end))
        numbers = [*(self._items[cut].number for cut in cuts[:-1]), self.shard.end]
        refs = [
            ShardRef(
                number=self.shard.number,
                first_item=numbers[place],
                items=numbers[place + 1] - numbers[place],
                bytes=self._before[cuts[place + 1]] - self._before[cuts[place]],
            )
            for place in range(len(cuts) - 1)
        ]
        self.shard = self.shard.until(numbers[0])
        self._end = cuts[0]
        return refs

    def _cut(self, bound: float, first: int, last: int) -> int:
        """The index, from ``first`` to ``last``, with a total weight of about ``bound`` before it."""
        index = bisect_left(self._before, bound, first, last)
        if index > first and bound - self._before[index - 1] < self._before[index] - bound:
            index -= 1
        return index

    def take_again(self, refs: Sequence[ShardRef], shard: ShardRef) -> None:
        """Undo :meth:`hand_back`, which returned ``refs``; ``shard`` is the value from before it."""
        while self._end < len(self._items) and self._items[self._end].number < refs[-1].end:
            self._end += 1
        self.shard = shard
