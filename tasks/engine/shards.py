"""The shards that a process works on, as others see them: how far they are, and parts of them that are handed back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from tasks.domain.run import ShardRef
from tasks.domain.sharing import ShardLoad


class ShardInProgress(Protocol):
    """A shard that items may be taken away from."""

    @property
    def load(self) -> ShardLoad:
        """How far it is."""

    async def hand_back(self, share: float, pieces: int) -> list[ShardRef]:
        """Hand back about ``share`` of what is not begun, in ``pieces``."""


class Shards:
    """The shards in progress in one process, and its pace in all of its shards."""

    def __init__(self) -> None:
        self.finished = 0
        """Total weight of the items that have their outcome from this process."""
        self.storage_share = 0.0
        """Share of an item's time spent on reading and writing it: an exponential moving average."""
        self._in_progress: dict[str, ShardInProgress] = {}

    def __len__(self) -> int:
        return len(self._in_progress)

    @contextmanager
    def has(self, key: str, shard: ShardInProgress) -> Iterator[None]:
        """Inside the block, the shard is in progress."""
        self._in_progress[key] = shard
        try:
            yield
        finally:
            del self._in_progress[key]

    @property
    def loads(self) -> dict[str, ShardLoad]:
        """How far each shard is, by its key."""
        return {key: shard.load for key, shard in self._in_progress.items()}

    async def hand_back(self, key: str, share: float, pieces: int) -> Sequence[ShardRef]:
        """Parts of a shard that are not begun and are given up; none if it is not in progress."""
        shard = self._in_progress.get(key)
        return await shard.hand_back(share, pieces) if shard is not None else []

    def finish(self, weight: int) -> None:
        """Count an item that has its outcome by its weight, or by its negative weight if it is sent again."""
        self.finished += weight

    def note_storage(self, storing_seconds: float, all_seconds: float) -> None:
        """Count the seconds that an item took, and how many of them were spent on reading and writing it."""
        self.storage_share += 0.05 * (storing_seconds / max(all_seconds, 1e-9) - self.storage_share)
