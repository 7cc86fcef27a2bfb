"""Dividing items into shards, each the group of items that one task run processes."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.domain.item import Item
from tasks.domain.run import ShardRef

GROW_EVERY = 200
"""After this many shards the next ones are twice as large: 100 million items make only about 1,000 shards."""


ITEM_WEIGHT = 16 << 10
"""Cost of an item in addition to its bytes, in bytes: a request, a result file, a line."""
UNKNOWN_WEIGHT = 64 << 10


def weight(item: Item) -> int:
    """Estimated work for an item, in bytes, used to distribute work among instances."""
    if item.error:
        return 1
    return ITEM_WEIGHT + (item.size if item.size >= 0 else UNKNOWN_WEIGHT)


@dataclass(frozen=True, slots=True)
class ShardBounds:
    """Maximum size of the first shards; an item of unknown size counts as ``unknown_bytes``."""

    items: int = 5_000
    bytes: int = 1 << 30
    unknown_bytes: int = UNKNOWN_WEIGHT

    def at(self, shard: int) -> tuple[int, int]:
        """Most items and bytes of shard number ``shard``."""
        factor = 1 << min(16, shard // GROW_EVERY)
        return self.items * factor, self.bytes * factor

    def weight(self, item: Item) -> int:
        """Bytes that an item counts as."""
        return item.size if item.size >= 0 else self.unknown_bytes


class Cutter:
    """Divides a stream of items into shards, in order, each item in exactly one; memory is bounded by one shard.

    A shard ends before the item that would exceed its bound of items or bytes; an item larger than the bound is a shard
    of its own. The number of items need not be known: the bounds grow with the number of shards. ``items``, ``bytes``,
    ``unknown_sizes`` and ``shards`` are the totals so far.
    """

    def __init__(self, bounds: ShardBounds) -> None:
        self._bounds = bounds
        self._max_items, self._max_bytes = bounds.at(0)
        self._shard: list[Item] = []
        self._weight = 0
        self.items = self.bytes = self.unknown_sizes = 0
        self.shards: list[ShardRef] = []

    def add(self, item: Item) -> tuple[ShardRef, list[Item]] | None:
        """Add an item; the shard that was completed before it, if any."""
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
        """End the current shard; the shard, if it has items."""
        if not self._shard:
            return None
        items, weight = self._shard, self._weight
        shard = ShardRef(number=len(self.shards), first_item=items[0].number, items=len(items), bytes=weight)
        self.shards.append(shard)
        self._shard, self._weight = [], 0
        self._max_items, self._max_bytes = self._bounds.at(len(self.shards))
        return shard, items
