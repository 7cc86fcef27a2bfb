"""The items of a shard that nobody has begun yet: taken one by one, and handed back by the tail."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.domain.item import Item
from tasks.domain.run import ShardRef
from tasks.domain.shard import weight


class Supply:
    """Gives out a shard's items in order; what is not begun may be handed back, so that another instance does it.

    ``shard`` is what is left of the shard here: its range ends where the first item handed back begins.
    """

    def __init__(self, shard: ShardRef, items: Sequence[Item]) -> None:
        self.shard = shard
        self._items = items
        self._next = 0
        self._end = len(items)
        self.weight = sum(map(weight, items))
        """Of the items that nobody has begun yet."""

    @property
    def left(self) -> int:
        """How many items nobody has begun yet."""
        return self._end - self._next

    def take(self) -> Item | None:
        """Begin the next item; None if there is none."""
        if self._next >= self._end:
            return None
        item = self._items[self._next]
        self._next += 1
        self.weight -= weight(item)
        return item

    def hand_back(self, share: float, pieces: int) -> list[ShardRef]:
        """Give up the last items that nobody has begun, about ``share`` (0-1) of their weight, in so many pieces.

        The pieces are of about the same weight each; there are fewer if there are not enough items.
        """
        wanted = share * self.weight
        # Something stays, so that no piece begins where this shard does, which names its report.
        stays = self._next < self._end and self._items[self._next].number == self.shard.first_item
        start, given = self._end, 0
        while start > self._next + stays and given < wanted:
            start -= 1
            given += weight(self._items[start])
        if start == self._end:
            return []
        behind = self.shard.behind
        cuts = [start]
        sofar = 0
        for index in range(start, self._end):
            if len(cuts) < pieces and index > cuts[-1] and sofar >= given * len(cuts) / pieces:
                cuts.append(index)
            sofar += weight(self._items[index])
        firsts = [self._items[index].number for index in cuts]
        refs = []
        for place, (first, after) in enumerate(zip(firsts, [*firsts[1:], behind], strict=True)):
            last = cuts[place + 1] if place + 1 < len(cuts) else self._end
            size = sum(weight(item) for item in self._items[cuts[place] : last])
            refs.append(ShardRef(number=self.shard.number, first_item=first, items=after - first, bytes=size))
        self.shard = self.shard.until(firsts[0])
        self._end = start
        self.weight -= given
        return refs

    def take_again(self, refs: Sequence[ShardRef], shard: ShardRef) -> None:
        """Undo :meth:`hand_back`, whose result was ``refs`` and before which ``shard`` was what was left."""
        while self._end < len(self._items) and self._items[self._end].number < refs[-1].behind:
            self.weight += weight(self._items[self._end])
            self._end += 1
        self.shard = shard
