"""The requests sent for one item, and whether their answers may be counted."""

from __future__ import annotations

from collections.abc import Collection

from tasks.clients.model_http.http_reply import Room, Stretch
from tasks.domain.result import Tally

NONE: tuple[Stretch, ...] = ()


class Sent:
    """The requests of one item. They are counted in ``tally``; ``room`` bounds the bytes of their answers."""

    __slots__ = ("_last", "_stretches", "room", "tally")

    def __init__(self, tally: Tally, room: Room | None = None) -> None:
        self.tally = tally
        self.room = room
        self._last: Stretch | None = None  # most items have one answer
        self._stretches: set[Stretch] | None = None

    def answered(self, stretch: Stretch) -> None:
        """Note an answer, by the stretch of its connection that it is part of."""
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
        """The stretches (or the only one) that were not settled when they brought an answer for the item."""
        if self._stretches is not None:
            return self._stretches
        return NONE if self._last is None else self._last


def is_doubted(stretches: Stretch | Collection[Stretch]) -> bool:
    """Whether an answer came on a connection that had an answer too many."""
    if isinstance(stretches, Stretch):
        return stretches.doubted
    return any(stretch.doubted for stretch in stretches)


def is_settled(stretches: Stretch | Collection[Stretch]) -> bool:
    """Whether every stretch is settled: unless it is doubted, its answers are known to belong to their requests."""
    if isinstance(stretches, Stretch):
        return stretches.settled
    return all(stretch.settled for stretch in stretches)
