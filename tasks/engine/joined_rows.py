"""What the shards of a run have found out, in one process, about several rows in one request."""

from __future__ import annotations

import asyncio
from typing import Any

from tasks.domain.answer import array_path
from tasks.domain.rows_per_request import AutoRows

TRIALS = 8
"""How often rows are sent both ways whose answers are all the same."""


class JoinedRows:
    """Whether rows may go into one request, how many, and where the answer has theirs (``array_path``)."""

    def __init__(self, response: Any) -> None:
        self.array_path = array_path(response)
        self.auto = AutoRows()
        self.trying = asyncio.Lock()
        """Held while rows are sent both ways: the others wait until it is known."""
        self.refused = False
        """Set once an answer to several rows was not those to single rows: each is sent for itself from then on."""
        self.trusted = False
        """Set once it was."""
        self._trials = 0

    def tried(self, *, alike: bool, answers: int) -> None:
        """Rows were sent both ways: whether the answers were ``alike``, and how many different ones there were.

        Equal answers to all of them do not tell whose each is: then other rows are tried, too, but not for ever.
        """
        self._trials += 1
        self.refused = self.refused or not alike
        self.trusted = not self.refused and (answers > 1 or self._trials >= TRIALS)
