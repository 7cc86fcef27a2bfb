"""The bytes that one process holds at once: bounded, fair, and given back whatever happens."""

from __future__ import annotations

import asyncio

import pytest
from clients.support import run
from fakes.processes import DEADLINE_SECONDS

from tasks.engine.budget import Budget


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
