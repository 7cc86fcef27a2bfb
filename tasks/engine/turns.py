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
        self._new: set[Turn] = set()
        """Turns of requests that were not sent yet."""

    def __bool__(self) -> bool:
        """Whether a request waits."""
        while self._line and self._line[0].done():
            self._line.popleft()
        return bool(self._line)

    async def wait(self, *, urgent: bool, new: bool) -> Instance:
        """Wait for a turn, at the head of the queue if ``urgent``; the instance at which a place was taken.

        A request is ``new`` if it was not sent yet. Raises the error passed to :meth:`end`.
        """
        turn: Turn = asyncio.get_running_loop().create_future()
        self._line.appendleft(turn) if urgent else self._line.append(turn)
        if new:
            self._new.add(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                raise TurnLost(turn.result()) from None
            raise
        finally:
            self._new.discard(turn)

    def give(self, instance: Instance) -> None:
        """Give a waiting request its turn at an instance that has a place; the queue must not be empty.

        If a healthy server has refused every request so far, choose one that may fare better: alternately the latest,
        which was begun for this purpose, and one far from the others.
        """
        probes = instance.outage.probes
        new = [turn for turn in self._line if turn in self._new and not turn.done()] if probes else []
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


class TurnLost(asyncio.CancelledError):
    """The wait was cancelled just after the place had been taken; the place has to be given back."""

    def __init__(self, instance: Instance) -> None:
        super().__init__()
        self.instance = instance
