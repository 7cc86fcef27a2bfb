"""Instances: started, shared by load, watched, started again, given up, and ended without a trace."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.support import alive, processes_with, run
from engine.support import GivenServers, Heard, all_ready, fake_launch, group_of, model_pid, send_all, stats
from fakes.model_behaviour import item_key
from fakes.model_server import FakeModelServer
from fakes.processes import DEADLINE_SECONDS, free_port

from tasks.domain.errors import ModelServerError, StorageError
from tasks.domain.instance import Launch
from tasks.engine.instances import InstanceGroup


def test_two_instances__share_by_load(tmp_path: Path) -> None:
    async def work() -> list[int]:
        async with group_of(tmp_path, "--service-time", "20", "--parallelism", "4", count=2) as group:
            await all_ready(group)
            items = [b"item %d" % number for number in range(200)]
            assert await send_all(group, items) == {item: item for item in items}
            return [(await stats(instance))["requests"]["/echo"] for instance in group.instances]

    seen = run(work())
    assert sum(seen) == 200
    assert min(seen) > 60


def test_slower_instance__is_given_less(tmp_path: Path) -> None:
    launches = iter([fake_launch(tmp_path, "--service-time", "5"), fake_launch(tmp_path, "--service-time", "100")])

    async def prepare() -> Launch:
        return next(launches)

    async def work() -> list[int]:
        async with group_of(tmp_path, count=2, max_concurrency=2, prepare=prepare) as group:
            await all_ready(group)
            await send_all(group, [b"item %d" % number for number in range(100)])
            return sorted([(await stats(instance))["requests"]["/echo"] for instance in group.instances])

    few, many = run(work())
    assert many > 3 * few


@pytest.mark.parametrize("most", [1, 3, 20])
def test_max_concurrency__is_never_passed(tmp_path: Path, most: int) -> None:
    async def work() -> int:
        async with group_of(tmp_path, "--service-time", "3", "--parallelism", "8", max_concurrency=most) as group:
            await send_all(group, [b"item %d" % number for number in range(150)])
            found: int = (await stats(group.instances[0]))["max_in_flight"]
            return found

    assert run(work()) <= most


def test_group__goes_on_with_one_instance_when_the_other_never_starts(tmp_path: Path) -> None:
    launches = iter([fake_launch(tmp_path, "--exit-at-start", "5"), fake_launch(tmp_path)])

    async def prepare() -> Launch:
        return next(launches)

    async def work() -> list[bool]:
        async with group_of(tmp_path, count=2, prepare=prepare) as group:
            items = [b"item %d" % number for number in range(30)]
            assert await send_all(group, items) == {item: item for item in items}
            await all_ready(group)
            return sorted(instance.given_up is not None for instance in group.instances)

    assert run(work()) == [False, True]


def test_group__that_cannot_start_at_all_says_why(tmp_path: Path) -> None:
    async def work() -> None:
        async with group_of(tmp_path, "--exit-at-start", "6", count=2):
            pass

    with pytest.raises(ModelServerError, match=r"(?s)ended with status 6.*exits at start, as asked"):
        run(work())
    assert processes_with(str(tmp_path)) == []


@pytest.mark.slow
def test_group__that_is_never_healthy_ends_with_its_time(tmp_path: Path) -> None:
    async def work() -> None:
        # Time enough for the server to start and to be asked.
        async with group_of(tmp_path, "--health", "never", timeout_seconds=6):
            pass

    with pytest.raises(ModelServerError) as raised:
        run(work())
    assert "was not ready within 0.1 minutes; health: HTTP 503. It printed last:" in str(raised.value)
    assert processes_with(str(tmp_path)) == []


@pytest.mark.parametrize(
    "error",
    [StorageError("The model package s3://a/b cannot be read."), OSError(13, "No permission"), RuntimeError("odd")],
)
def test_group__whose_preparation_fails_ends_at_once(tmp_path: Path, error: Exception) -> None:
    async def prepare() -> Launch:
        raise error

    async def work() -> None:
        async with group_of(tmp_path, prepare=prepare, start=False) as group:
            await asyncio.wait_for(group.start(), DEADLINE_SECONDS)

    with pytest.raises(ModelServerError) as raised:
        run(work())
    assert str(error) in str(raised.value)


def test_group__whose_command_does_not_exist_ends_at_once(tmp_path: Path) -> None:
    async def prepare() -> Launch:
        return Launch(("/no/such/program",), tmp_path, {})

    async def work() -> None:
        async with group_of(tmp_path, prepare=prepare, start=False) as group:
            await asyncio.wait_for(group.start(), DEADLINE_SECONDS)

    with pytest.raises(ModelServerError, match=r"(?s)status 127.*cannot run /no/such/program"):
        run(work())


def test_group__whose_folder_is_gone_ends_at_once(tmp_path: Path) -> None:
    async def prepare() -> Launch:
        return fake_launch(tmp_path / "nothing")

    async def work() -> None:
        async with group_of(tmp_path, prepare=prepare, start=False) as group:
            await asyncio.wait_for(group.start(), DEADLINE_SECONDS)

    with pytest.raises(ModelServerError, match="No such file"):
        run(work())


async def kill_first(group: InstanceGroup, gate: Path, held: list[bytes], requests: int) -> None:
    """Kill the first instance once it has got so many requests, one of those held among them; then open the gate."""
    keys = {item_key(item) for item in held}
    while True:
        found = await stats(group.instances[0])
        if found["requests"].get("/echo", 0) >= requests and keys & set(found["seen"]):
            break
        await asyncio.sleep(0.01)
    os.kill(model_pid(group.instances[0]), signal.SIGKILL)
    while group.deaths == 0:
        await asyncio.sleep(0.01)
    gate.touch()


def test_kill__from_outside_loses_nothing(tmp_path: Path) -> None:
    # One is not answered before the server has died: something is in flight then.
    held = [f"FAIL:until:{tmp_path / 'gate'} held".encode()]
    items = [*held, *(b"FAIL:slow:0.05 %d" % number for number in range(100))]

    async def work() -> int:
        async with group_of(tmp_path) as group:
            sending = asyncio.create_task(send_all(group, items))
            await kill_first(group, tmp_path / "gate", held, 20)
            assert await sending == {item: item for item in items}
            return group.deaths

    assert run(work()) == 1


def test_kill__of_one_of_two_loses_nothing(tmp_path: Path) -> None:
    # The first two go to one instance each.
    held = [f"FAIL:until:{tmp_path / 'gate'} {number}".encode() for number in range(2)]
    items = [*held, *(b"FAIL:slow:0.05 %d" % number for number in range(100))]
    sick: list[int] = []

    async def work() -> int:
        async with group_of(tmp_path, count=2, on_health=sick.append) as group:
            await all_ready(group)
            sending = asyncio.create_task(send_all(group, items))
            await kill_first(group, tmp_path / "gate", held, 10)
            assert await sending == {item: item for item in items}
            await all_ready(group)
            return group.deaths

    assert run(work()) == 1
    assert sick[-2:] == [1, 0] and max(sick) == 1


@pytest.mark.slow
def test_suspects__of_an_instance_that_is_given_up_go_to_another_one(tmp_path: Path) -> None:
    calls = 0

    async def prepare() -> Launch:
        nonlocal calls
        calls += 1
        return fake_launch(tmp_path, *(["--exit-at-start"] if calls > 2 else []))

    held = [f"FAIL:until:{tmp_path / 'gate'} {number}".encode() for number in range(2)]
    items = [*held, *(b"FAIL:slow:0.2 %d" % number for number in range(40))]

    async def work() -> None:
        async with group_of(tmp_path, count=2, prepare=prepare) as group:
            await all_ready(group)
            sending = asyncio.create_task(send_all(group, items))
            await kill_first(group, tmp_path / "gate", held, 1)
            assert await sending == {item: item for item in items}
            assert group.instances[0].given_up is not None

    run(work())


@pytest.mark.slow
def test_instance__that_cannot_start_again_ends_those_who_wait(tmp_path: Path) -> None:
    calls = 0

    async def prepare() -> Launch:
        nonlocal calls
        calls += 1
        return fake_launch(tmp_path, *(["--exit-at-start", "8"] if calls > 1 else []))

    async def work() -> dict[bytes, bytes | str]:
        async with group_of(tmp_path, prepare=prepare, max_concurrency=1) as group:
            return await asyncio.wait_for(send_all(group, [b"FAIL:die", b"a", b"b"]), DEADLINE_SECONDS)

    answers = run(work())
    assert calls == 4
    assert {str(answer) for answer in answers.values()} == {
        "No instance is left: The model server ended with status 8. It printed last:"
    }


@pytest.mark.parametrize("moment", ["starting", "ready", "busy", "dead"])
def test_close__leaves_no_process(tmp_path: Path, moment: str) -> None:
    options = ["--health", "never"] if moment == "starting" else []

    async def work() -> None:
        async with group_of(tmp_path, "--spawn-child", "setsid", *options, count=2, start=False) as group:
            starting = asyncio.create_task(group.start())
            if moment == "starting":
                while len(processes_with(str(tmp_path))) < 6:  # two wardens, servers and children
                    assert not starting.done()
                    await asyncio.sleep(0.01)
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)
                return
            await starting
            await all_ready(group)
            if moment == "busy":
                sending = asyncio.create_task(send_all(group, [b"FAIL:hang"] * 3))
                while not any(instance.in_flight for instance in group.instances):
                    await asyncio.sleep(0.01)
                sending.cancel()
            if moment == "dead":
                os.kill(model_pid(group.instances[0]), signal.SIGKILL)

    run(work())
    assert processes_with(str(tmp_path)) == []


def test_close__can_be_called_without_a_start(tmp_path: Path) -> None:
    async def work() -> None:
        async with group_of(tmp_path, start=False):
            pass

    run(work())


def test_running_server__is_asked_and_never_started_or_ended(tmp_path: Path) -> None:
    with FakeModelServer() as model:

        async def work() -> None:
            group = running_group(tmp_path, model.url)
            await group.start()
            assert group.capacity == 2
            assert await send_all(group, [b"a", b"b", b"c"]) == {b"a": b"a", b"b": b"b", b"c": b"c"}
            await group.close()

        run(work())
        assert alive(model.pid)
        assert model.stats()["max_in_flight"] <= 2


def running_group(folder: Path, *addresses: str, on_health: Callable[[int], None] = lambda sick: None) -> InstanceGroup:
    async def never() -> Launch:
        raise AssertionError("there is nothing to prepare")

    servers = GivenServers(folder, never, " ".join(addresses))
    return InstanceGroup(
        range(len(addresses)), servers, Heard(on_health), timeout_seconds=5, max_concurrency=2, outage_seconds=0
    )


def test_running_servers__share_by_load_each_with_a_limit_of_its_own(tmp_path: Path) -> None:
    slow = ("--service-time", "2", "--parallelism", "8")
    with FakeModelServer(*slow) as one, FakeModelServer(*slow) as other:

        async def work() -> None:
            group = running_group(tmp_path, one.url, other.url)
            await group.start()
            assert (group.capacity, group.sick, group.notes) == (4, 0, [])
            items = [b"item %d" % number for number in range(100)]
            assert await send_all(group, items) == {item: item for item in items}
            await group.close()

        run(work())
        seen = [model.stats() for model in (one, other)]
        assert sum(model["requests"]["/echo"] for model in seen) == 100
        assert min(model["requests"]["/echo"] for model in seen) > 20
        assert max(model["max_in_flight"] for model in seen) <= 2


def test_running_server__that_is_not_there_at_the_start_joins_when_it_is(tmp_path: Path) -> None:
    loaded = tmp_path / "loaded"
    late = FakeModelServer("--health-when", str(loaded), wait_healthy=False)
    with FakeModelServer() as model, late:
        told: list[int] = []

        async def work() -> None:
            group = running_group(tmp_path, late.url, model.url, on_health=told.append)
            await group.start()
            assert group.sick == 1 and told[-1] == 1
            assert group.notes == [f"the model server {late.url} was not there at the start"]
            assert await send_all(group, [b"a", b"b"]) == {b"a": b"a", b"b": b"b"}
            assert late.stats()["requests"].get("/echo") is None
            loaded.touch()
            await all_ready(group)
            assert group.sick == 0 and told[-1] == 0
            await send_all(group, [b"item %d" % number for number in range(50)])
            await group.close()

        run(work())
        assert late.stats()["requests"]["/echo"] > 0


def test_running_server__that_wants_other_headers_later_is_given_up(tmp_path: Path) -> None:
    port = free_port()
    with FakeModelServer() as model:

        async def work() -> None:
            group = running_group(tmp_path, model.url, f"http://127.0.0.1:{port}")
            await group.start()
            with FakeModelServer("--token", "another", port=port, wait_healthy=False):
                await group.instances[1].ready.wait()
            assert "answered HTTP 401" in str(group.instances[1].given_up)
            assert not group.lost and group.sick == 1
            assert await send_all(group, [b"a"]) == {b"a": b"a"}
            await group.close()

        run(work())
