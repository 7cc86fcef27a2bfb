"""Which refusals mean that a server is overloaded, and which occur under any limit: pure counting."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

FLAKY = 0.02
"""This share of requests may be refused, one by one, without meaning overload."""
CREDIT = 3.0
"""This many in a row may be refused after many responses."""
COMPARED = 12
"""The number of refusals compared, half of them under the higher limits and half under the lower ones."""
APART = 1.5
"""The limits of the two halves must differ by at least this factor."""
ALIKE = 0.5
"""Refusals do not depend on the limit if the lower half's share is at least this many times the higher half's."""
MOST = 0.1
"""A larger share of refusals always means overload."""


class _Refusal(NamedTuple):
    limit: int
    answers: int


class Refusals:
    """Counts refusals and responses of one server.

    If every refusal lowered the limit, a gateway that answers 503 to every fiftieth request under any load would bring
    it down to almost nothing. Such refusals are recognized because they are about as frequent under much lower limits.
    """

    def __init__(self) -> None:
        self._seen: deque[_Refusal] = deque(maxlen=COMPARED)
        self._credit = 0.0
        self._share = FLAKY

    def too_many(self, limit: int, answers: int) -> bool:
        """Count a refusal under a limit, with ``answers`` responses since the last one; whether it means overload."""
        self._seen.append(_Refusal(limit, answers))
        self._credit = min(CREDIT, self._credit + self._share * answers)
        if self._credit < 1:
            return True
        self._credit -= 1
        return False

    def take_for_granted(self) -> int:
        """Tolerate refusals at their present share from now on, if they do not depend on the limit.

        The highest of the limits compared, and a new comparison begins; 0 if nothing changes.
        """
        if len(self._seen) < COMPARED:
            return 0
        refusals = sorted(self._seen)
        lower, higher = refusals[: COMPARED // 2], refusals[COMPARED // 2 :]
        few, many = (sum(one.limit for one in half) for half in (lower, higher))
        under_few, under_many = (sum(one.answers + 1 for one in half) for half in (lower, higher))
        share = COMPARED / (under_few + under_many)
        if many < APART * few or under_few * ALIKE > under_many or share > MOST:
            return 0
        self._share = max(FLAKY, 2 * share)
        self._credit = CREDIT
        self._seen.clear()
        return refusals[-1].limit
