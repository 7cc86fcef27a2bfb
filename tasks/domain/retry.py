"""Whether and when a failed request is retried: a pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["refused", "connection", "timeout", "status", "unusable"]
"""``refused``: no connection could be opened. ``connection``: it was reset, or closed without a response. ``timeout``:
no response in time. ``status``: an HTTP error.
``unusable``: a response that is too large, whose end cannot be determined, or whose encoding is unknown."""

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
MAX_ATTEMPTS = 6
MAX_TIMEOUTS = 2
"""Fewer attempts after time-outs: each one has held a place in flight for the whole time-out."""
BASE_SECONDS = 0.2
MAX_SECONDS = 20.0
MOST_DOUBLINGS = 10
MAX_RETRY_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one attempt failed. ``retry_after_seconds`` is the server's Retry-After, if it sent one.

    It is ``explained`` if the package's own exception is the reason: the same request would raise it again.
    """

    kind: Kind
    status: int | None = None
    retry_after_seconds: float | None = None
    explained: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """``again``: retry after ``delay_seconds``; otherwise the failure is final."""

    again: bool
    delay_seconds: float = 0.0


FINAL = Decision(False)


def decide(failure: Failure, attempt: int, *, pending: int = 0, jitter: float = 1.0) -> Decision:
    """Decide what follows after attempt number ``attempt`` (1 = the first) failed with ``failure``.

    ``pending`` attempts, not yet known to count, affect the delay only.

    Exponential backoff with equal jitter (``jitter`` is a random number from 0 to 1, given by the caller so that this
    function stays pure): the delay is between half and the whole of ``0.2 s * 2^(attempt - 1)``, at most 20 s.
    A server's Retry-After replaces it (never earlier than asked, at most 300 s).

    The retried statuses are those that HTTP calls temporary (RFC 9110: 408, 500, 502, 503, 504; RFC 6585: 429).
    """
    if (
        failure.kind == "unusable"
        or failure.explained
        or (failure.kind == "status" and failure.status not in RETRIED_STATUSES)
    ):
        return FINAL
    if attempt >= (MAX_TIMEOUTS if failure.kind == "timeout" else MAX_ATTEMPTS):
        return FINAL
    delay = min(MAX_SECONDS, BASE_SECONDS * 2.0 ** (min(max(attempt, pending), MOST_DOUBLINGS) - 1)) * (
        0.5 + 0.5 * jitter
    )
    if failure.retry_after_seconds is not None:
        if failure.retry_after_seconds > MAX_RETRY_AFTER_SECONDS:
            return FINAL
        delay = max(0.0, failure.retry_after_seconds) + 0.05 * jitter
    return Decision(True, delay)
