"""How items are cut into shards: the group of items that one task run processes."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.domain.item import Item
from tasks.domain.run import ShardRef

GROW_EVERY = 200
"""After so many shards the next ones are twice as large: 100 million items stay about 1,000 shards."""


ITEM_WEIGHT = 16 << 10
"""What an item costs beside its bytes, as bytes: a request, a result file, a line."""
UNKNOWN_WEIGHT = 64 << 10


def weight(item: Item) -> int:
    """How much work an item is thought to be, in bytes, where work is shared out among instances."""
    if item.error:
        return 1
    return ITEM_WEIGHT + (item.size if item.size >= 0 else UNKNOWN_WEIGHT)


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large the first shards may get; ``unknown_bytes`` is what an item of unknown size counts."""

    items: int = 5_000
    bytes: int = 1 << 30
    unknown_bytes: int = UNKNOWN_WEIGHT

    def at(self, shard: int) -> tuple[int, int]:
        """Items and bytes that shard number ``shard`` may have."""
        factor = 1 << min(16, shard // GROW_EVERY)
        return self.items * factor, self.bytes * factor

    def weight(self, item: Item) -> int:
        """Bytes that an item counts."""
        return item.size if item.size >= 0 else self.unknown_bytes


class Cutter:
    """Cuts a stream of items into shards, in order, each item in exactly one; memory is bounded by one shard.

    A shard ends before the item that would take it over its bound of items or bytes; an item larger than the bound is a
    shard of its own. The number of items need not be known: the bounds grow with the number of shards. ``items``,
    ``bytes``, ``unknown_sizes`` and ``shards`` are the totals so far.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._max_items, self._max_bytes = bounds.at(0)
        self._shard: list[Item] = []
        self._weight = 0
        self.items = self.bytes = self.unknown_sizes = 0
        self.shards: list[ShardRef] = []

    def add(self, item: Item) -> tuple[ShardRef, list[Item]] | None:
        """Take an item; the shard that is full without it, if one is."""
        weight = self._bounds.weight(item)
        full = None
        if self._shard and (len(self._shard) >= self._max_items or self._weight + weight > self._max_bytes):
            full = self.end()
        self._shard.append(item)
        self._weight += weight
        self.items += 1
        if item.size >= 0:
            self.bytes += item.size
        elif not item.error:
            self.unknown_sizes += 1
        return full

    def end(self) -> tuple[ShardRef, list[Item]] | None:
        """The shard that is being filled, if it has items."""
        if not self._shard:
            return None
        items, weight = self._shard, self._weight
        shard = ShardRef(number=len(self.shards), first_item=items[0].number, items=len(items), bytes=weight)
        self.shards.append(shard)
        self._shard, self._weight = [], 0
        self._max_items, self._max_bytes = self._bounds.at(len(self.shards))
        return shard, items
