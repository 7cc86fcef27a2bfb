"""The bytes of items that one process holds at once."""

from __future__ import annotations

import asyncio


class Held:
    """Bytes taken from a budget, until :meth:`give_back`."""

    def __init__(self, budget: Budget, amount: int) -> None:
        self._budget = budget
        self._amount = amount

    def shrink(self, amount: int) -> None:
        """Give back what is more than ``amount``; never takes more."""
        self.change(min(amount, self._amount))

    def change(self, amount: int) -> None:
        """Hold ``amount`` from now on, at once: bytes that are there already cannot wait.

        Whoever waits for bytes waits until what was overdrawn is given back, too.
        """
        self._budget.give(self._amount - amount)
        self._amount = amount

    def give_back(self) -> None:
        """Give all of it back."""
        self._budget.give(self._amount)
        self._amount = 0


class Budget:
    """Bounds the bytes that are held at once; waits in order. One request for more than all waits for all."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._free = total
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    async def take(self, amount: int) -> int:
        """Wait until ``amount`` bytes are free and take them; what was taken, for :meth:`give`."""
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
                if (amount, turn) in self._waiting:  # else it was passed over when its turn came
                    self._waiting.remove((amount, turn))
                self._wake()
            raise
        return amount

    async def hold(self, amount: int) -> Held:
        """Wait until ``amount`` bytes are free; they are held until they are given back."""
        return Held(self, await self.take(amount))

    def give(self, amount: int) -> None:
        """Give bytes back (or take them without waiting, if less than 0)."""
        self._free += amount
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._free:
            amount, turn = self._waiting.pop(0)
            if not turn.done():
                self._free -= amount
                turn.set_result(None)
