"""A bound on the bytes of items and answers that one process holds at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Held:
    """Bytes taken from a budget, until :meth:`give_back`.

    It is also the room for answers while they arrive (:class:`tasks.clients.model_http.http_reply.Room`); with
    ``single`` for only one answer, after which nothing more is sent.
    """

    def __init__(self, budget: Budget, amount: int, *, single: bool = False) -> None:
        self._budget = budget
        self._amount = amount
        self._single = single

    def shrink(self, amount: int) -> None:
        """Give back any bytes above ``amount``; never takes more."""
        self.change(min(amount, self._amount))

    def change(self, amount: int) -> None:
        """Hold ``amount`` from now on, without waiting: the bytes are in memory already.

        This may overdraw the budget; waiting takers then wait until it is no longer overdrawn.
        """
        self._budget.give(self._amount - amount)
        self._amount = amount

    def give_back(self) -> None:
        """Give back all bytes."""
        amount, self._amount = self._amount, 0
        self._budget.give_back(self, amount)

    def arrive(self, amount: int, resume: Callable[[], None]) -> bool:
        """Hold received bytes of an answer; False if no more should be read until ``resume`` is called."""
        self._amount += amount
        return self._budget.arrive(self, amount, resume)

    def ended(self, amount: int, resume: Callable[[], None], *, whole: bool) -> None:
        """An answer, of which ``amount`` bytes were held, has ended; ``resume`` is no longer called."""
        self._budget.forget(resume)
        if not (whole and self._single):  # else the bytes are given back soon, and others may read then
            self._budget.let_read(self)
        if not whole:
            self.change(self._amount - amount)


class Budget:
    """Bounds the bytes that are held at once; first come, first served. A demand above the total waits for the total.

    While it is overdrawn, only one of the holders whose answers arrive reads on, so that it always reaches its end and
    gives back its bytes; then the next one reads.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self._reader: Held | None = None
        self._paused: list[tuple[Held, Callable[[], None]]] = []

    async def take(self, amount: int) -> int:
        """Wait until ``amount`` bytes are free and take them; the amount taken, for :meth:`give`."""
        amount = min(amount, self._total)
        if not self._waiting and amount <= self._free:
            self._free -= amount
            return amount
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((amount, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(amount)
            else:
                if (amount, turn) in self._waiting:  # else it was skipped when its turn came
                    self._waiting.remove((amount, turn))
                self._wake()
            raise
        return amount

    async def hold(self, amount: int, *, single: bool = False) -> Held:
        """Wait until ``amount`` bytes are free; they are held until they are given back."""
        return Held(self, await self.take(amount), single=single)

    def arrive(self, held: Held, amount: int, resume: Callable[[], None]) -> bool:
        """Take received bytes; False if ``held`` should read on only when ``resume`` is called."""
        self._free -= amount
        if self._free < 0 and self._reader is None:
            self._reader = held
        if self._free >= 0 or self._reader is held:
            return True
        self._paused.append((held, resume))
        return False

    def forget(self, resume: Callable[[], None]) -> None:
        """No longer call ``resume``."""
        if self._paused:
            self._paused = [paused for paused in self._paused if paused[1] != resume]

    def let_read(self, held: Held) -> None:
        """Let another holder read, if it was the turn of ``held``."""
        if self._reader is held:
            self._reader = None
            self._wake()

    def give_back(self, held: Held, amount: int) -> None:
        """Give back all bytes of ``held``."""
        if self._reader is held:
            self._reader = None
        self.give(amount)

    def give(self, amount: int) -> None:
        """Give back bytes (or take them without waiting, if ``amount`` is negative)."""
        self._free += amount
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            amount, turn = self._waiting.pop(0)
            if not turn.done():
                self._free -= amount
                turn.set_result(None)
        if self._paused:
            self._resume()

    def _resume(self) -> None:
        """Let holders read on if there is room, or else only the one whose turn it is."""
        if self._free < 0 and self._reader is not None:
            return
        if self._free < 0:
            self._reader = self._paused[0][0]
        others = []
        for held, resume in self._paused:
            if self._free >= 0 or held is self._reader:
                resume()
            else:
                others.append((held, resume))
        self._paused = others
