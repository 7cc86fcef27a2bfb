"""What comes back on a connection to a model server: an answer, or why there is none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

EXPLAINED = b"x-package-exception"
"""By this header the built-in model server says that an answer is an exception of the package (infra/serving)."""
KEPT_HEADERS = frozenset({b"retry-after", b"location", EXPLAINED})


class Stretch:
    """The answers of one connection since it was last quiet. Either ``settled`` or ``doubted`` one day; doubts win."""

    __slots__ = ("doubted", "settled")

    def __init__(self, *, settled: bool = False) -> None:
        self.settled = settled
        self.doubted = False


class Reply(NamedTuple):
    """What came back: the status, the body, and what the headers say that matters here."""

    status: int
    data: bytes
    encoding: str
    stretch: Stretch
    headers: Mapping[bytes, str] = {}
    """Those of KEPT_HEADERS that there were, by lower-case name."""


class Room(Protocol):
    """Bounds the bytes of answers that are here at once."""

    def arrive(self, amount: int, resume: Callable[[], None]) -> bool:
        """Count bytes that are here; False if no more should be read until ``resume`` is called."""

    def ended(self, amount: int, resume: Callable[[], None], *, whole: bool) -> None:
        """An answer has ended of which ``amount`` bytes were counted; unless it is ``whole`` they are of no use now.

        ``resume`` is not called any more.
        """


class ConnectionBroken(Exception):
    """There is no whole answer, and the connection is of no use any more."""


class NoConnection(ConnectionBroken):
    """None could be opened, so nothing was sent."""


NO_SUCH_HOST = "no host has this name"
NO_TLS = "no TLS connection"
"""How it begins if none can be opened, however long one waits."""


class ReplyTooLarge(Exception):
    """The answer has more bytes than are taken."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ReplyDoubted(Exception):
    """What came on the connection, this answer included, need not belong to the requests."""


class ReplyUnclear(Exception):
    """More bytes follow the answer, although it is the only one of its connection: its length is wrong."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ReplyLate(Exception):
    """There was no answer in time."""
