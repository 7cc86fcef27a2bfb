"""Requests that wait for a place at an instance: first come, first served, except for probes of a server."""

from __future__ import annotations

import asyncio
from collections import deque

from tasks.domain.errors import ModelServerError
from tasks.domain.outage import elsewhere
from tasks.engine.instance import Instance

Turn = asyncio.Future[Instance]


class Turns:
    """The queue of waiting requests."""

    def __init__(self) -> None:
        self._line: deque[Turn] = deque()
        self._again: set[Turn] = set()
        """Turns of requests that were sent before."""

    def __bool__(self) -> bool:
        """Whether a request waits."""
        while self._line and self._line[0].done():
            self._line.popleft()
        return bool(self._line)

    def add(self, *, urgent: bool, again: bool) -> Turn:
        """Queue a request, at the head if ``urgent``; its turn, whose result is the instance that has a place for it.

        A request that was sent before comes ``again``. The turn raises the error passed to :meth:`end`.
        """
        turn: Turn = asyncio.get_running_loop().create_future()
        self._line.appendleft(turn) if urgent else self._line.append(turn)
        if again:
            self._again.add(turn)
            turn.add_done_callback(self._again.discard)
        return turn

    def give(self, instance: Instance) -> None:
        """Give a waiting request its turn at an instance that has a place; the queue must not be empty.

        If a healthy server has refused every request so far, choose one that may fare better: alternately the latest,
        which was begun for this purpose, and one far from the others.
        """
        probes = instance.outage.probes
        new = [turn for turn in self._line if turn not in self._again and not turn.done()] if probes else []
        if new:
            chosen = new[-1] if probes % 2 else new[elsewhere(probes // 2, len(new))]
            self._line.remove(chosen)
        else:
            chosen = self._line.popleft()
        instance.take()
        chosen.set_result(instance)

    def end(self, error: ModelServerError) -> None:
        """End the wait of every request with an error."""
        while self._line:
            if not (turn := self._line.popleft()).done():
                turn.set_exception(error)
