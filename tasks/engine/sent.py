"""What was sent for one item, and whether what was answered may be counted."""

from __future__ import annotations

from collections.abc import Collection

from tasks.clients.http_reply import Room, Stretch
from tasks.domain.result import Tally

NONE: tuple[Stretch, ...] = ()


class Sent:
    """The requests of one item. They are counted in ``tally``; ``room`` is for the bytes of their answers."""

    __slots__ = ("_last", "_stretches", "room", "tally")

    def __init__(self, tally: Tally, room: Room | None = None) -> None:
        self.tally = tally
        self.room = room
        self._last: Stretch | None = None  # most items have one answer
        self._stretches: set[Stretch] | None = None

    def answered(self, stretch: Stretch) -> None:
        """An answer has come, as one of this stretch of its connection."""
        if stretch is self._last or (stretch.settled and not stretch.doubted):
            return
        if self._last is None:
            self._last = stretch
            return
        if self._stretches is None:
            self._stretches = {self._last}
        self._stretches.add(stretch)
        self._last = stretch

    @property
    def unsettled(self) -> Stretch | Collection[Stretch]:
        """The stretches, or the one, that were not settled when they had an answer for the item."""
        if self._stretches is not None:
            return self._stretches
        return NONE if self._last is None else self._last


def is_doubted(stretches: Stretch | Collection[Stretch]) -> bool:
    """Whether an answer came on a connection on which there was one too many."""
    if isinstance(stretches, Stretch):
        return stretches.doubted
    return any(stretch.doubted for stretch in stretches)


def is_settled(stretches: Stretch | Collection[Stretch]) -> bool:
    """Whether it is known of each answer that it belongs to its request, or need not."""
    if isinstance(stretches, Stretch):
        return stretches.settled
    return all(stretch.settled for stretch in stretches)
