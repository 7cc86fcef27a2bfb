"""The outcome of a request on a connection to a model server: a response, or the reason why it is missing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

EXPLAINED = b"x-package-exception"
"""Header by which the built-in model server marks a response as an exception of the package (infra/serving)."""
KEPT_HEADERS = frozenset({b"retry-after", b"location", EXPLAINED})


class Stretch:
    """The responses of one connection since it was last quiet: eventually ``settled`` or ``doubted``; doubted wins."""

    __slots__ = ("doubted", "settled")

    def __init__(self, *, settled: bool = False) -> None:
        self.settled = settled
        self.doubted = False


class Reply(NamedTuple):
    """A response: the status, the body, and the relevant headers."""

    status: int
    data: bytes
    encoding: str
    stretch: Stretch
    headers: Mapping[bytes, str] = {}
    """Those of KEPT_HEADERS that were present, by lower-case name."""


class Room(Protocol):
    """Bounds the bytes of responses held in memory at once."""

    def arrive(self, amount: int, resume: Callable[[], None]) -> bool:
        """Count bytes that have arrived; False if no more should be read until ``resume`` is called."""

    def ended(self, amount: int, resume: Callable[[], None], *, whole: bool) -> None:
        """A response has ended, with ``amount`` bytes counted; unless it is ``whole``, they are discarded.

        ``resume`` is no longer called.
        """


class ConnectionBroken(Exception):
    """The response is missing or incomplete, and the connection can no longer be used."""


class NoConnection(ConnectionBroken):
    """No connection could be opened, so nothing was sent."""


NO_SUCH_HOST = "no host has this name"
NO_TLS = "no TLS connection"
"""NoConnection's message begins with one of these two if waiting cannot help."""


class _ReplyUnusable(Exception):
    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ReplyTooLarge(_ReplyUnusable):
    """The response has more bytes than allowed."""


class ReplyDoubted(Exception):
    """The responses on the connection, including this one, may not belong to their requests."""


class ReplyUnclear(_ReplyUnusable):
    """More bytes follow the only response of a connection: its length is wrong."""


class ReplyLate(Exception):
    """No response arrived in time."""
