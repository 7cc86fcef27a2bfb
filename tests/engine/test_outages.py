"""A model server that is away, or refuses everything, for a while: no item fails for it; and who is to blame else."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.support import run
from engine.support import group_of, send_all
from fakes.model_server import FakeModelServer

from tasks.domain.result import Tally
from tasks.engine.instances import InstanceGroup

ITEMS = [b"item %d" % number for number in range(40)]
ALL = {item: item for item in ITEMS}


async def once(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def send_in_outage(
    group: InstanceGroup, begin: Callable[[], object], end: Callable[[], object], items: list[bytes] = ITEMS
) -> tuple[dict[bytes, bytes | str], Tally, list[int]]:
    """Send the items while the server is away, until that is known; their answers, and how many were sick meanwhile."""
    tally = Tally()
    await asyncio.to_thread(begin)
    sending = asyncio.create_task(send_all(group, items, tally))
    await once(lambda: group.outages.current is not None)
    sick = [group.sick]
    await asyncio.to_thread(end)
    answers = await sending
    return answers, tally, [*sick, group.sick]


@pytest.mark.parametrize("most", [1, 8])
def test_outage__of_a_server_that_is_away_fails_no_item(tmp_path: Path, most: int) -> None:
    with FakeModelServer() as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=most, running_url=model.url, outage_seconds=600) as group:
                answers, tally, sick = await send_in_outage(group, model.stop, model.start)
                assert answers == ALL
                assert sick == [1, 0]
                assert group.outages.current is None
                assert tally.retries > 0

        run(work())


@pytest.mark.parametrize(("most", "refusal"), [(1, "503"), (8, "503"), (8, "429 1"), (None, "502")])
def test_outage__of_a_server_that_refuses_everything_fails_no_item(
    tmp_path: Path, most: int | None, refusal: str
) -> None:
    refusing = tmp_path / "refusing"
    with FakeModelServer("--refuse-while", str(refusing)) as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=most, running_url=model.url, outage_seconds=600) as group:
                answers, _, sick = await send_in_outage(group, lambda: refusing.write_text(refusal), refusing.unlink)
                assert answers == ALL
                assert sick == [1, 0]

        run(work())


def test_outage__of_an_own_model_server_fails_no_item(tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"

    async def work() -> None:
        async with group_of(tmp_path, "--refuse-while", str(refusing), outage_seconds=600) as group:
            answers, *_ = await send_in_outage(group, lambda: refusing.write_text("503"), refusing.unlink)
            assert answers == ALL
            assert group.deaths == 0

    run(work())


def test_outage__sends_one_request_at_a_time_until_one_is_answered(tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"
    with FakeModelServer("--refuse-while", str(refusing)) as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=8, running_url=model.url, outage_seconds=600) as group:
                refusing.write_text("503")
                tally = Tally()
                sending = asyncio.create_task(send_all(group, ITEMS, tally))
                await once(lambda: group.outages.current is not None)
                sent = tally.requests
                await once(lambda: tally.requests >= sent + 3)
                assert group.instances[0].in_flight <= 1
                refusing.unlink()
                assert await sending == ALL

        run(work())


def test_retry_after__rests_the_server_and_not_one_item_after_the_other(tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"
    refusing.write_text("429 2")
    with FakeModelServer("--refuse-while", str(refusing)) as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=4, running_url=model.url, outage_seconds=600) as group:
                sending = asyncio.create_task(send_all(group, ITEMS))
                await once(lambda: group.instances[0].outage.holds)
                refusing.unlink()
                assert await sending == ALL

        run(work())
        assert 1 <= model.stats()["statuses"]["429"] <= 4  # those that were under way when the first one was refused


def test_addresses__that_are_away_leave_their_load_to_the_others(tmp_path: Path) -> None:
    with FakeModelServer() as model, FakeModelServer() as other:

        async def work() -> None:
            async with group_of(
                tmp_path, count=2, max_concurrency=2, running_url=f"{model.url} {other.url}", outage_seconds=600
            ) as group:
                await asyncio.to_thread(other.stop)
                for _ in range(20):
                    assert await send_all(group, ITEMS) == ALL
                assert group.outages.current is None  # one of them answers

        run(work())


def test_request__that_is_refused_alone_fails_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with group_of(tmp_path, max_concurrency=2, outage_seconds=600) as group:
            answers = await send_all(group, [b"FAIL:503 a", *ITEMS, b"FAIL:503 b"])
            assert all("HTTP 503 (tried" in str(answers.pop(poison)) for poison in (b"FAIL:503 a", b"FAIL:503 b"))
            assert answers == ALL

    run(work())


def test_outage__that_lasts_ends_the_run_and_whoever_waits(tmp_path: Path) -> None:
    reasons: list[str] = []

    def stopped() -> str:
        return f"Not processed: {reasons[0]}" if reasons else ""

    with FakeModelServer() as model:

        async def work() -> None:
            def end(reason: str) -> None:
                reasons.append(reason)
                group.end_waiting()

            async with group_of(tmp_path, running_url=model.url, outage_seconds=3, on_outage=end) as group:
                await asyncio.to_thread(model.stop)
                for _ in range(2):  # nor does anybody wait who comes later, such as the next rows of a table
                    async with asyncio.timeout(60):
                        answers = await send_all(group, ITEMS, stopped=stopped)
                    assert set(answers.values()) == {stopped()}

        run(work())
    (reason,) = reasons
    assert reason.startswith(f"the model server {model.url} has answered no request for 0.05 minutes (no connection (")


def test_outage__of_all_that_were_there_ends_the_run_though_another_address_never_was(tmp_path: Path) -> None:
    ended = asyncio.Event()
    with FakeModelServer() as model, FakeModelServer() as other:
        other.stop()

        async def work() -> None:
            def end(reason: str) -> None:
                assert reason.startswith(f"the model server {model.url} has answered no request for")
                ended.set()
                group.end_waiting()

            async with group_of(
                tmp_path, count=2, running_url=f"{model.url} {other.url}", outage_seconds=3, on_outage=end
            ) as group:
                await asyncio.to_thread(model.stop)
                sending = asyncio.create_task(send_all(group, ITEMS))
                await once(lambda: group.outages.current is not None)
                async with asyncio.timeout(60):
                    await sending
                assert ended.is_set()

        run(work())


def test_request__that_is_tried_alone_goes_elsewhere_when_its_server_stays_away(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    held = [b"FAIL:until:%b %d" % (str(gate).encode(), number) for number in range(2)]
    with FakeModelServer() as model, FakeModelServer() as other:

        async def work() -> None:
            async with group_of(
                tmp_path, count=2, max_concurrency=1, running_url=f"{model.url} {other.url}", outage_seconds=3
            ) as group:
                first = group.instances[0]
                while first.answered is None:
                    await send_all(group, ITEMS)
                sending = asyncio.create_task(send_all(group, held))
                await once(lambda: all(one.in_flight for one in group.instances))
                await asyncio.to_thread(model.stop)
                await once(lambda: first.outage.down)
                await asyncio.to_thread(model.start)
                await once(lambda: first.in_flight > 0 and not first.outage.down)
                await asyncio.to_thread(model.stop)  # twice while it had this one: perhaps it is to blame
                await once(lambda: first.suspects > 0)
                gate.touch()
                async with asyncio.timeout(60):
                    assert await sending == {item: item for item in held}

        run(work())


def test_request__that_is_refused_alone_after_large_ones_fails_alone(tmp_path: Path) -> None:
    large = b"x" * (2 << 20)
    with FakeModelServer() as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=1, running_url=model.url, outage_seconds=600) as group:
                assert await send_all(group, [large]) == {large: large}
                async with asyncio.timeout(60):
                    (answer,) = (await send_all(group, [b"FAIL:503 " + large])).values()
                assert "HTTP 503 (tried" in str(answer)

        run(work())


@pytest.mark.parametrize("status", [401, 403])
def test_server__that_allows_nothing_ends_the_run_at_once(tmp_path: Path, status: int) -> None:
    refusing = tmp_path / "refusing"
    refusing.write_text(str(status))
    reasons: list[str] = []
    with FakeModelServer("--refuse-while", str(refusing)) as model:

        async def work() -> None:
            def end(reason: str) -> None:
                reasons.append(reason)
                group.end_waiting()

            async with group_of(
                tmp_path, max_concurrency=1, running_url=model.url, outage_seconds=600, on_outage=end
            ) as group:
                answers = await send_all(group, ITEMS, stopped=lambda: "".join(reasons[:1]))
                assert sum(text == reasons[0] for text in answers.values()) >= len(ITEMS) - 2

        run(work())
        assert model.stats()["statuses"][str(status)] <= 3
    assert f"answers HTTP {status} (no " in reasons[0] and "`headers`" in reasons[0]


def test_server__that_allows_nothing_any_more_ends_the_run_and_costs_no_item(tmp_path: Path) -> None:
    refusing = tmp_path / "refusing"
    reasons: list[str] = []
    with FakeModelServer("--refuse-while", str(refusing)) as model:

        async def work() -> None:
            def end(reason: str) -> None:
                reasons.append(reason)
                group.end_waiting()

            async with group_of(
                tmp_path, max_concurrency=4, running_url=model.url, outage_seconds=600, on_outage=end
            ) as group:
                assert await send_all(group, ITEMS) == ALL
                refusing.write_text("401")
                answers = await send_all(group, ITEMS, stopped=lambda: "".join(reasons[:1]))
                assert set(answers.values()) == {reasons[0]}

        run(work())


def test_server__that_forbids_some_items_fails_them_alone(tmp_path: Path) -> None:
    with FakeModelServer() as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=4, running_url=model.url, outage_seconds=600) as group:
                forbidden = [b"FAIL:403 %d" % number for number in range(30)]
                answers = await send_all(group, [*ITEMS[:5], *forbidden, *ITEMS[5:]])
                assert all("HTTP 403" in str(answers.pop(item)) for item in forbidden)
                assert answers == ALL

        run(work())


def test_server__that_goes_away_whenever_it_has_one_request_costs_that_one_alone(tmp_path: Path) -> None:
    with FakeModelServer() as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=4, running_url=model.url, outage_seconds=600) as group:
                sending = asyncio.create_task(send_all(group, [*ITEMS[:3], b"FAIL:die", *ITEMS[3:]]))
                while not sending.done():
                    process = model.process
                    assert process is not None
                    if process.poll() is not None:
                        await once(lambda: sending.done() or group.outages.current is not None)
                        await asyncio.to_thread(
                            model.start, wait=False
                        )  # it may be killed before it is seen to be ready
                    await asyncio.sleep(0.02)
                answers = await sending
                assert answers.pop(b"FAIL:die") == "The model server went away 3 times on this item."
                assert answers == ALL

        run(work())


@pytest.mark.parametrize("most", [1, 4, None])
def test_requests__that_a_server_refuses_before_it_has_answered_any_fail_alone(
    tmp_path: Path, most: int | None
) -> None:
    poisons = [b"FAIL:503 %d" % number for number in range(12)]
    with FakeModelServer() as model:

        async def work() -> None:
            async with group_of(tmp_path, max_concurrency=most, running_url=model.url, outage_seconds=600) as group:
                answers = await send_all(group, [*poisons, *ITEMS])
                assert all("HTTP 503 (tried" in str(answers.pop(poison)) for poison in poisons)
                assert answers == ALL

        run(work())


@pytest.mark.parametrize("most", [1, 4])
def test_server__that_hangs_costs_no_item(tmp_path: Path, most: int) -> None:
    with FakeModelServer("--service-time", "20") as model:

        async def work() -> None:
            async with group_of(
                tmp_path, max_concurrency=most, running_url=model.url, outage_seconds=600, request_seconds=2
            ) as group:
                sending = asyncio.create_task(send_all(group, ITEMS))
                await once(lambda: group.instances[0].answered is not None)
                os.kill(model.pid, signal.SIGSTOP)
                try:
                    await once(lambda: group.outages.current is not None)
                    await once(lambda: group.instances[0].outage.cause.startswith("no answer within"))
                finally:
                    os.kill(model.pid, signal.SIGCONT)
                assert await sending == ALL

        run(work())
