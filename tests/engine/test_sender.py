"""One request until its end: what is tried again, how often, and which request kills a model server."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from clients.support import processes_with, run
from engine.support import group_of, send_all, stats
from fakes.model_behaviour import item_key
from fakes.processes import DEADLINE_SECONDS

from tasks.domain.instance import MAX_DEATHS_IN_A_ROW
from tasks.domain.result import Tally


def outcome(folder: Path, item: bytes, **options: float) -> tuple[bytes | str, int, Tally, list[float]]:
    """Answer or message of one item, the requests that the server saw of it, the tally, and the pauses in between.

    The pauses are those that the sender makes: here they are not waited for.
    """
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    async def work() -> tuple[bytes | str, int, Tally, list[float]]:
        tally = Tally()
        async with group_of(folder, "--count-items", **options) as group:  # type: ignore[arg-type]
            answer = (await send_all(group, [item], tally, pause))[item]
            return answer, (await stats(group.instances[0]))["items"].get(item_key(item), 0), tally, pauses

    return run(work())


def test_send__gives_the_answer_and_counts_the_request(tmp_path: Path) -> None:
    answer, seen, tally, _ = outcome(tmp_path, b"an item")
    assert (answer, seen, tally.requests, tally.retries) == (b"an item", 1, 1, 0)
    assert tally.percentile_ms(0.5) is not None


@pytest.mark.parametrize("status", [400, 404, 413, 422, 501])
def test_send__does_not_repeat_what_will_not_get_better(tmp_path: Path, status: int) -> None:
    answer, seen, tally, _ = outcome(tmp_path, f"FAIL:{status}".encode())
    assert answer == f'The model answered HTTP {status}: {{"error": "as asked"}}'
    assert (seen, tally.requests, tally.retries) == (1, 1, 0)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_send__repeats_what_may_pass(tmp_path: Path, status: int) -> None:
    item = f"FAIL:{status}:2".encode()
    answer, seen, tally, _ = outcome(tmp_path, item)
    assert (answer, seen, tally.requests, tally.retries) == (item, 3, 3, 2)


def test_send__gives_up_after_six_tries(tmp_path: Path) -> None:
    answer, seen, tally, pauses = outcome(tmp_path, b"FAIL:500")
    assert answer == 'The model answered HTTP 500 (tried 6 times): {"error": "as asked"}'
    assert (seen, tally.requests, tally.retries) == (6, 6, 5)
    longest = [0.2, 0.4, 0.8, 1.6, 3.2]
    assert len(pauses) == 5
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))


def test_send__comes_back_when_it_was_told_to(tmp_path: Path) -> None:
    item = b"FAIL:429:1:1"
    began = time.monotonic()
    answer, seen, _, pauses = outcome(tmp_path, item)
    assert (answer, seen, pauses) == (item, 2, [])  # all requests wait, not this one alone
    assert time.monotonic() - began >= 1


def test_send__does_not_wait_for_hours(tmp_path: Path) -> None:
    answer, seen, _, pauses = outcome(tmp_path, b"FAIL:429:4000:1")
    assert answer == 'The model answered HTTP 429: {"error": "slow down"}'
    assert (seen, pauses) == (1, [])


def test_send__repeats_after_a_closed_connection(tmp_path: Path) -> None:
    item = b"FAIL:close:2"
    answer, seen, tally, _ = outcome(tmp_path, item)
    assert (answer, seen, tally.retries) == (item, 3, 2)


def test_send__gives_up_a_silent_server_after_two_tries(tmp_path: Path) -> None:
    answer, seen, _, _ = outcome(tmp_path, b"FAIL:hang", request_seconds=0.5)
    assert answer == "The model did not answer: no answer within 0.5 s (tried 2 times)."
    assert seen == 2


@pytest.mark.slow
def test_killer__ends_failed_and_all_others_succeed(tmp_path: Path) -> None:
    items = [f"item {number}".encode() for number in range(60)]
    items.insert(20, b"FAIL:die")

    async def work() -> tuple[dict[bytes, bytes | str], int, int]:
        async with group_of(tmp_path, "--state", str(tmp_path / "state")) as group:
            answers = await send_all(group, items)
            await group.instances[0].ready.wait()
            return answers, group.deaths, (await stats(group.instances[0]))["starts"]

    answers, deaths, starts = run(work())
    assert answers.pop(b"FAIL:die") == "model server died 3 times on this item"
    assert all(answer == item for item, answer in answers.items())
    assert (deaths, starts) == (3, 4)


@pytest.mark.slow
def test_killers__several_at_once_take_nobody_along(tmp_path: Path) -> None:
    killers = [b"FAIL:die %d" % number for number in range(3)]
    items = [f"item {number}".encode() for number in range(30)]

    async def work() -> tuple[dict[bytes, bytes | str], int]:
        async with group_of(tmp_path) as group:
            return await send_all(group, [killers[0], *items[:4], killers[1], *items[4:], killers[2]]), group.deaths

    answers, deaths = run(work())
    assert [answers.pop(killer) for killer in killers] == ["model server died 3 times on this item"] * 3
    assert all(answer == item for item, answer in answers.items())
    assert deaths <= 9


def test_killer__that_kills_once_only_succeeds(tmp_path: Path) -> None:
    async def work() -> dict[bytes, bytes | str]:
        async with group_of(tmp_path, "--state", str(tmp_path / "state")) as group:
            return await send_all(group, [b"FAIL:die:1", b"other"])

    assert run(work()) == {b"FAIL:die:1": b"FAIL:die:1", b"other": b"other"}


@pytest.mark.slow
def test_suspects__are_tried_one_by_one(tmp_path: Path) -> None:
    # All are in flight when the server dies; those that are slow would overlap if they were not tried alone.
    items = [b"FAIL:slow:0.3 %d" % number for number in range(7)]

    async def work() -> tuple[dict[bytes, bytes | str], int, int]:
        async with group_of(tmp_path, "--state", str(tmp_path / "state")) as group:
            sending = asyncio.create_task(send_all(group, [*items, b"FAIL:die:1"]))
            while group.deaths == 0:
                await asyncio.sleep(0.01)
            end = asyncio.create_task(send_all(group, [b"a later one"]))
            answers = await sending
            found = await stats(group.instances[0])
            assert (await end) == {b"a later one": b"a later one"}
            return answers, found["max_in_flight"], group.instances[0].suspects

    answers, most, suspects = run(work())
    assert all(answer == item for item, answer in answers.items())
    assert (most, suspects) == (1, 0)


@pytest.mark.slow
def test_server__that_always_dies_is_given_up_and_nobody_waits_for_ever(tmp_path: Path) -> None:
    items = [b"FAIL:die %d" % number for number in range(30)]

    async def work() -> tuple[dict[bytes, bytes | str], int]:
        async with group_of(tmp_path, max_concurrency=1) as group:
            answers = await asyncio.wait_for(send_all(group, items), 240)
            assert group.lost
            assert processes_with(str(tmp_path)) == []  # and it is not started again
            return answers, group.deaths

    answers, deaths = run(work())
    assert deaths == MAX_DEATHS_IN_A_ROW
    messages = set(answers.values())
    assert "model server died 3 times on this item" in messages
    lost = [str(message) for message in messages if "No instance is left" in str(message)]
    assert len(lost) == 1
    said = f"No instance is left: The model server died {MAX_DEATHS_IN_A_ROW} times, the last times without one answer"
    assert lost[0].startswith(said)
    assert "\n" not in lost[0]


def test_send__cancelled_gives_its_place_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with group_of(tmp_path, max_concurrency=1) as group:
            instance = group.instances[0]
            running = asyncio.create_task(send_all(group, [b"FAIL:hang"]))
            while not instance.in_flight:
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(send_all(group, [b"waits"]))
            await asyncio.sleep(0)
            waiting.cancel()
            running.cancel()
            await asyncio.gather(running, waiting, return_exceptions=True)
            assert instance.in_flight == 0
            assert await asyncio.wait_for(send_all(group, [b"next"]), DEADLINE_SECONDS) == {b"next": b"next"}

    run(work())


@pytest.mark.slow
def test_suspect__cancelled_does_not_keep_the_instance_from_others(tmp_path: Path) -> None:
    async def work() -> None:
        async with group_of(tmp_path, "--state", str(tmp_path / "state")) as group:
            instance = group.instances[0]
            killer = asyncio.create_task(send_all(group, [b"FAIL:die:1", b"FAIL:hang x", b"FAIL:hang y"]))
            while instance.suspects < 2:
                await asyncio.sleep(0.005)
            killer.cancel()
            await asyncio.gather(killer, return_exceptions=True)
            assert instance.suspects == 0
            assert await asyncio.wait_for(send_all(group, [b"next"]), DEADLINE_SECONDS) == {b"next": b"next"}

    run(work())


def test_overload__makes_fewer_requests_at_once(tmp_path: Path) -> None:
    async def work() -> tuple[int, int]:
        async with group_of(tmp_path) as group:
            before = group.instances[0].limit.limit
            await send_all(group, [b"FAIL:429:0:1"])
            return before, group.instances[0].limit.limit

    before, after = run(work())
    assert after == before // 2


def test_send__after_the_end_of_a_group_says_that_no_instance_is_left(tmp_path: Path) -> None:
    async def work() -> dict[bytes, bytes | str]:
        async with group_of(tmp_path, "--exit-at-start", "4", start=False) as group:
            with pytest.raises(Exception, match="ended with status 4"):
                await group.start()
            return await send_all(group, [b"x"])

    assert run(work()) == {b"x": "No instance is left: The model server ended with status 4. It printed last:"}
