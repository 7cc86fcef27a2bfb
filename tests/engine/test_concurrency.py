"""The limit of requests in flight against real model servers, over real connections: counts, not seconds."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path
from typing import Any

import pytest
from clients.support import run
from clients.support import run as run_on_loop
from engine.runs import Shard, local_items, make_run, no_environment
from engine.support import all_ready, fake_launch, group_of, stats
from fakes.model_server import FakeModelServer

from tasks.domain.instance import Launch
from tasks.domain.request import Body
from tasks.domain.result import Tally
from tasks.engine import items
from tasks.engine.instances import InstanceGroup
from tasks.engine.sender import Sender
from tasks.engine.sent import Sent
from tasks.engine.session import Session
from tasks.engine.shard import infer_shard


async def keep_busy(group: InstanceGroup, items: int, at_once: int = 280) -> list[tuple[int, ...]]:
    """Send so many items, as a shard does: some wait while others are sent; the instances' limits after each answer."""
    sender, tally, numbers = Sender(group), Tally(), iter(range(items))
    limits: list[tuple[int, ...]] = []

    async def work() -> None:
        for number in numbers:
            item = b"item %d" % number
            assert (await sender.send(Body("application/json", (item,)), Sent(tally))).data == item
            limits.append(tuple(instance.limit.limit for instance in group.instances))

    await asyncio.gather(*(work() for _ in range(at_once)))
    return limits


def drive(folder: Path, items: int, *options: str) -> tuple[list[int], dict[str, Any]]:
    """The limits over a run of so many items at one server, and the server's counts."""

    async def work() -> tuple[list[int], dict[str, Any]]:
        async with group_of(folder, *options) as group:
            limits = await keep_busy(group, items)
            return [limit for (limit,) in limits], await stats(group.instances[0])

    return run(work())


def usual(limits: list[int]) -> int:
    """The limit that half of the answers saw at most."""
    return sorted(limits)[len(limits) // 2]


@pytest.mark.parametrize(("parallelism", "items", "most"), [(1, 100, 4), (8, 900, 18), (64, 3_000, 140)])
def test_limit__finds_what_a_model_serves_at_once(tmp_path: Path, parallelism: int, items: int, most: int) -> None:
    # Late timers of a busy machine look like a queue at the server; tests/domain holds exact bounds, with counted time.
    milliseconds = "200" if parallelism > 8 else "50"  # what two busy cores can do
    limits, counted = drive(tmp_path, items, "--service-time", milliseconds, "--parallelism", str(parallelism))
    assert counted["requests"]["/echo"] == items
    assert 0.75 * parallelism <= usual(limits[items // 3 :]) <= most
    assert counted["max_in_flight"] <= max(16, 4 * parallelism)


@pytest.mark.slow
def test_limit__follows_a_model_that_serves_more_and_then_less(tmp_path: Path) -> None:
    speeds = ["--service-time", "200", "--parallelism", "8", "--then", "200:200:64", "--then", "3000:100:8"]
    limits, counted = drive(tmp_path, 5_000, *speeds)
    assert counted["requests"]["/echo"] == 5_000
    few, many = limits[80:190], limits[1_500:2_900]
    few_again = limits[4_000:]  # in simulation, the limit has come down after 260 to 980 answers
    assert 8 <= usual(few) <= 20
    assert 48 <= usual(many) <= 160
    # On a busy machine timers are late, which looks like a queue at the server: about 10 on an idle one, 35 seen.
    assert 6 <= usual(few_again) <= usual(many) / 2


def test_limit__stays_small_at_a_model_that_answers_at_once(tmp_path: Path) -> None:
    limits, counted = drive(tmp_path, 8_000)
    assert counted["requests"]["/echo"] == 8_000
    assert usual(limits[4_000:]) <= 64


def test_limits__are_found_for_each_instance(tmp_path: Path) -> None:
    parallelisms = itertools.cycle(["2", "16"])

    async def prepare() -> Launch:
        return fake_launch(tmp_path, "--service-time", "100", "--parallelism", next(parallelisms))

    async def work() -> tuple[list[tuple[int, ...]], list[int]]:
        async with group_of(tmp_path, count=2, prepare=prepare) as group:
            await all_ready(group)
            limits = await keep_busy(group, 1_500)
            return limits, [(await stats(instance))["requests"]["/echo"] for instance in group.instances]

    limits, counts = run(work())
    found = [usual(list(one)) for one in zip(*limits[500:], strict=True)]
    (few, small), (many, large) = sorted(zip(counts, found, strict=True))
    assert few + many == 1_500
    assert many > 4 * few
    assert small <= 8
    assert large >= 12


def test_limit__is_found_by_one_of_several_processes_though_its_storage_is_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = items._read, items._write

    async def slow_read(*arguments: Any) -> bytes:
        await asyncio.sleep(0.05)
        return await read(*arguments)

    async def slow_write(*arguments: Any) -> None:
        await write(*arguments)
        await asyncio.sleep(0.05)

    monkeypatch.setattr(items, "_read", slow_read)
    monkeypatch.setattr(items, "_write", slow_write)
    files = {f"{number:04}.bin": b"%d" % number for number in range(1_500)}
    with FakeModelServer("--service-time", "50", "--parallelism", "16") as server:
        shard = Shard(make_run(server.url, str(tmp_path / "out")), local_items(tmp_path / "in", files))

        async def work() -> int:
            session = Session(shard.run, shard.settings, shard.credentials, no_environment, number=0)
            try:
                await shard.store_plan(session)
                _, _, _, tally = await session.during(infer_shard(session, shard.ref))
                assert (tally.successful, tally.failed) == (len(files), 0)
                return session.group.limit
            finally:
                await session.close()

        limit = run_on_loop(work())
        assert server.stats()["max_in_flight"] >= 16
    assert 14 <= limit <= 64  # one moment's; late timers of a busy machine look like a queue at the server
