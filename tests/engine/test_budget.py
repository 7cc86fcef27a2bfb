"""The bytes that one process holds at once: bounded, fair, and given back whatever happens."""

from __future__ import annotations

import asyncio

import pytest
from clients.support import run
from fakes.processes import DEADLINE_SECONDS

from tasks.engine.budget import Budget, Held


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_budget__lets_wait_who_does_not_fit_and_keeps_the_order() -> None:
    async def work() -> list[str]:
        budget = Budget(10)
        order: list[str] = []

        async def take(name: str, amount: int) -> None:
            order.append(f"{name}{await budget.take(amount)}")

        held = await budget.take(8)
        tasks = [asyncio.create_task(take(*one)) for one in (("large", 6), ("small", 1), ("other", 3))]
        await settle()
        assert order == []  # the small one would fit, but the large one was first
        budget.give(held)
        await asyncio.gather(*tasks)
        return order

    assert run(work()) == ["large6", "small1", "other3"]


def test_budget__gives_all_to_a_request_for_more_than_all() -> None:
    async def work() -> None:
        budget = Budget(10)
        first = await budget.take(1)
        oversize = asyncio.create_task(budget.take(1000))
        await settle()
        assert not oversize.done()
        budget.give(first)
        assert await oversize == 10
        budget.give(10)
        assert await budget.take(10) == 10

    run(work())


@pytest.mark.parametrize("given_before", [False, True])
def test_budget__loses_nothing_when_a_waiting_one_is_cancelled(given_before: bool) -> None:
    async def work() -> None:
        budget = Budget(10)
        held = await budget.take(10)
        first, second = (asyncio.create_task(budget.take(amount)) for amount in (10, 4))
        await settle()
        if given_before:
            budget.give(held)  # its turn has come, but it has not run yet
            first.cancel()
        else:
            first.cancel()
            budget.give(held)  # cancelled, but it does not know yet
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await asyncio.wait_for(second, DEADLINE_SECONDS) == 4
        assert await asyncio.wait_for(budget.take(6), DEADLINE_SECONDS) == 6

    run(work())


def test_budget__goes_on_behind_a_cancelled_one() -> None:
    async def work() -> None:
        budget = Budget(10)
        await budget.take(6)
        large, small = (asyncio.create_task(budget.take(amount)) for amount in (10, 4))
        await settle()
        large.cancel()
        assert await asyncio.wait_for(small, DEADLINE_SECONDS) == 4

    run(work())


def test_budget__is_never_passed_by_many_at_once() -> None:
    async def work() -> int:
        budget, held, most = Budget(100), 0, 0

        async def one(number: int) -> None:
            nonlocal held, most
            amount = await budget.take(number * 7 % 60 + 1)
            held += amount
            most = max(most, held)
            await asyncio.sleep(0.0001 * (number % 5))
            held -= amount
            budget.give(amount)

        tasks = [asyncio.create_task(one(number)) for number in range(300)]
        await settle()
        for task in tasks[::7]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert await budget.take(100) == 100
        return most

    assert run(work()) <= 100


# -- answers while they arrive


class Arrival:
    """An answer that is read in steps as long as there is room."""

    def __init__(self, held: Held, size: int) -> None:
        self.held = held
        self.left = size
        self.size = size
        self.paused = False

    def read(self, step: int) -> None:
        """Some of it comes, if it is read."""
        if not self.paused and self.left:
            self.left -= step
            self.paused = not self.held.arrive(step, self.resume)

    def resume(self) -> None:
        """It is read again."""
        self.paused = False


@pytest.mark.parametrize("single", [True, False])
def test_arriving__answers_never_hold_more_than_the_budget_and_one_of_them_and_a_step(single: bool) -> None:
    async def work() -> None:
        budget = Budget(100)
        arrivals = [Arrival(await budget.hold(0, single=single), 80) for _ in range(8)]
        most = 0
        while arrivals:
            reading = [one for one in arrivals if not one.paused]
            assert reading  # there is always one that goes on
            for one in reading:
                one.read(10)
                most = max(most, sum(each.size - each.left for each in arrivals))
                if not one.left:
                    one.held.ended(80, one.resume, whole=True)
                    one.held.give_back()  # it is written
                    arrivals.remove(one)
        assert most <= 100 + 80 + 8 * 10
        assert await budget.take(100) == 100  # all of it is back

    run(work())


def test_arriving__answer_of_which_nothing_comes_of_lets_another_one_read() -> None:
    async def work() -> None:
        budget = Budget(10)
        first, second = [Arrival(await budget.hold(0, single=True), 80) for _ in range(2)]
        first.read(20)
        second.read(20)
        assert (first.paused, second.paused) == (False, True)
        first.held.ended(20, first.resume, whole=False)
        assert not second.paused
        second.held.ended(20, second.resume, whole=False)
        assert await budget.take(10) == 10

    run(work())


def test_arriving__answers_of_one_table_are_read_in_turn_although_it_holds_them_all() -> None:
    async def work() -> None:
        budget = Budget(10)
        held = await budget.hold(5)
        rows = [Arrival(held, 20) for _ in range(4)]
        while any(row.left for row in rows):
            reading = [row for row in rows if row.left and not row.paused]
            assert reading
            for row in reading:
                row.read(10)
                if not row.left:
                    held.ended(20, row.resume, whole=True)
        held.give_back()
        assert await budget.take(10) == 10

    run(work())
