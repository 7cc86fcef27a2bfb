"""Whether a failed request is tried again, and when: one pure decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["refused", "connection", "timeout", "status", "unusable"]
"""``refused``: no connection could be opened. ``connection``: one was reset, or closed unanswered. ``timeout``: no
answer in time. ``status``: an HTTP error.
``unusable``: an answer of more bytes than are taken, whose end cannot be told, or in an encoding that is not known."""

RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
MAX_ATTEMPTS = 6
MAX_TIMEOUTS = 2
"""A request that timed out held its place for the whole time-out already: two of them are the end."""
BASE_SECONDS = 0.2
MAX_SECONDS = 20.0
MOST_DOUBLINGS = 10
MAX_RETRY_AFTER_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with one attempt. ``retry_after_seconds`` is what the server asked for, if it did.

    It is ``explained`` if the package's own exception is the reason: the same request would bring the same one.
    """

    kind: Kind
    status: int | None = None
    retry_after_seconds: float | None = None
    explained: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """``again``: send it once more after ``delay_seconds``; else the failure is final."""

    again: bool
    delay_seconds: float = 0.0


FINAL = Decision(False)


def decide(failure: Failure, attempt: int, *, pending: int = 0, jitter: float = 1.0) -> Decision:
    """Decide on attempt number ``attempt`` (1 = the first) having failed with ``failure``.

    ``pending`` tries, of which it is not known yet whether they count as attempts, decide on the delay only.

    Exponential backoff with full jitter (``jitter`` is a random number from 0 to 1, given by the caller so that this
    function stays pure): the delay lies between half and the whole of ``0.2 s * 2^(attempt - 1)``, at most 20 s.
    A server's Retry-After replaces it (never earlier than asked, at most 300 s).

    The statuses tried again are those that HTTP calls temporary (RFC 9110: 408, 500, 502, 503, 504; RFC 6585: 429).
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
