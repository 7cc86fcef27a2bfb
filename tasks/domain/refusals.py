"""Which refused requests say that a server has too much, and which it would refuse under any limit: pure counting."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

FLAKY = 0.02
"""Such a share of requests may be refused, one by one, without meaning anything."""
CREDIT = 3.0
"""So many in a row may be, after many answers."""
COMPARED = 12
"""So many refusals are looked at, half of them under the higher limits and half under the lower ones."""
APART = 1.5
"""The limits of the two halves are to differ by this factor at least."""
ALIKE = 0.5
"""Refusals do not depend on the limit if the lower half's share is at least so many times that of the higher half."""
MOST = 0.1
"""A larger share of refusals always means too much."""


class _Refusal(NamedTuple):
    limit: int
    answers: int


class Refusals:
    """Counts refusals and answers of one server.

    A gateway that answers 503 to each fiftieth request whatever its load would take a limit that is lowered with each
    refusal down to almost nothing: its refusals show by being about as frequent under much lower limits.
    """

    __slots__ = ("_credit", "_seen", "_share")

    def __init__(self) -> None:
        self._seen: deque[_Refusal] = deque(maxlen=COMPARED)
        self._credit = 0.0
        self._share = FLAKY

    def too_many(self, limit: int, answers: int) -> bool:
        """Count a refusal under a limit, after so many answers since the last one; whether it is one too many."""
        self._seen.append(_Refusal(limit, answers))
        self._credit = min(CREDIT, self._credit + self._share * answers)
        if self._credit < 1:
            return True
        self._credit -= 1
        return False

    def take_for_granted(self) -> int:
        """If refusals do not depend on the limit: no more of them are too many from now on; else nothing changes.

        The highest of the limits that were compared, or 0. Comparing begins anew.
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
