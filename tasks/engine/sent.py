"""What was sent for one item, and whether what was answered may be counted."""

from __future__ import annotations

from tasks.clients.http_reply import Room, Stretch
from tasks.domain.result import Tally


class Sent:
    """The requests of one item. They are counted in ``tally``; ``room`` is for the bytes of their answers."""

    __slots__ = ("_stretches", "room", "tally")

    def __init__(self, tally: Tally, room: Room | None = None) -> None:
        self.tally = tally
        self.room = room
        self._stretches: set[Stretch] = set()

    def answered(self, stretch: Stretch) -> None:
        """An answer has come, as one of this stretch of its connection."""
        if not stretch.settled or stretch.doubted:
            self._stretches.add(stretch)

    @property
    def settled(self) -> bool:
        """Whether it is known that each answer belongs to its request, or that one need not (:attr:`doubted`)."""
        return all(stretch.settled for stretch in self._stretches)

    @property
    def doubted(self) -> bool:
        """Whether an answer came on a connection on which there was one too many."""
        return any(stretch.doubted for stretch in self._stretches)
