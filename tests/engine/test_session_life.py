"""The end of a session: what stays for a resumed run, what is waited for, and who comes too late."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from clients.support import run
from engine.runs import Shard, local_items, make_run, partial_reports
from fakes.model_server import FakeModelServer

from tasks.domain.errors import ModelServerError
from tasks.domain.stop import Stop
from tasks.engine.session import Session
from tasks.engine.sessions import Sessions
from tasks.engine.shard import infer_shard


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A package that does not start."""
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "run.sh").write_text("exit 9\n")
    return folder


@pytest.fixture
def held() -> Sessions:
    return Sessions()


def shard_of(tmp_path: Path, broken: Path) -> Shard:
    items = local_items(tmp_path / "in", {f"{number}.jpg": b"x" for number in range(4)})
    return Shard(make_run(str(broken), str(tmp_path / "out"), package=str(broken)), items)


async def fails_to_start(shard: Shard) -> None:
    session = shard.session()
    try:
        with pytest.raises(ModelServerError, match="ended with status 9"):
            await infer_shard(session, shard.ref)
    finally:
        await session.close()


def test_session__of_a_first_try_that_does_not_start_leaves_no_scratch_folder(tmp_path: Path, broken: Path) -> None:
    shard = shard_of(tmp_path, broken)

    async def work() -> None:
        await shard.store_plan(shard.session())
        await fails_to_start(shard)

    run(work())
    assert os.listdir(tmp_path / "out") == []


def test_session__of_a_resumed_run_that_does_not_start_keeps_what_was_done(
    tmp_path: Path, broken: Path, fake: FakeModelServer
) -> None:
    shard = shard_of(tmp_path, broken)
    works = Shard(make_run(fake.url, str(tmp_path / "out")), shard.items, report_seconds=0.05)
    works.run = works.run.model_copy(update={"task_id": shard.run.task_id})
    (tmp_path / "in" / "3.jpg").write_bytes(b"FAIL:hang")
    works.items = shard.items = [item._replace(size=-1) for item in shard.items]

    async def work() -> None:
        session = works.session()
        try:
            await works.store_plan(session)
            interrupted = asyncio.create_task(infer_shard(session, works.ref))
            while len(await partial_reports(session)) < 3:
                await asyncio.sleep(0.01)
            interrupted.cancel()
            await asyncio.gather(interrupted, return_exceptions=True)
        finally:
            await session.close()
        await fails_to_start(shard)
        left = shard.session()
        assert len(await partial_reports(left)) == 3
        await left.close()
        # Accounted for as it is now, the rest only was not processed; nothing is started for that.
        shard.run = shard.run.model_copy(update={"attempt": "0123abcd"})
        last = shard.session()
        last.start_nothing(Stop(reason="not started", cause="It ended.\nIt printed last:\n    no such file"))
        _, _, _, tally = await infer_shard(last, shard.ref)
        assert (tally.successful, tally.failed, tally.not_processed) == (3, 1, 1)
        assert list(tally.causes) == ["Not processed: It ended. no such file"]
        assert last.preparing_since == 0
        await last.close()

    run(work())


def session_at(tmp_path: Path, fake: FakeModelServer) -> Session:
    return Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", {"1": b"x"})).session()


def test_sessions__are_opened_once_for_all_shards(tmp_path: Path, fake: FakeModelServer, held: Sessions) -> None:
    made: list[Session] = []

    async def make() -> Session:
        await asyncio.sleep(0)
        made.append(session_at(tmp_path, fake))
        return made[-1]

    async def work() -> None:
        await held.begin("a")
        found = await asyncio.gather(*(held.open("a", make) for _ in range(5)))
        assert set(map(id, found)) == {id(made[0])} and len(made) == 1
        await held.close("a")

    run(work())


def test_sessions__are_not_opened_any_more_once_the_run_has_ended(
    tmp_path: Path, fake: FakeModelServer, held: Sessions
) -> None:
    closed: list[Session] = []
    opening = asyncio.Event()
    go_on = asyncio.Event()

    async def make() -> Session:
        return session_at(tmp_path, fake)

    async def make_slowly() -> Session:
        opening.set()
        await go_on.wait()
        session = session_at(tmp_path, fake)
        close = session.close

        async def told() -> None:
            closed.append(session)
            await close()

        session.close = told  # type: ignore[method-assign]
        return session

    async def work() -> None:
        await held.begin("a")
        late = asyncio.create_task(held.open("a", make_slowly))
        await opening.wait()
        await held.close("a")
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await late
        assert len(closed) == 1  # what was made meanwhile is closed
        with pytest.raises(asyncio.CancelledError):
            await held.open("a", make)
        await held.begin("a")  # the same flow run, tried again
        assert await held.open("a", make)
        await held.close("a")

    run(work())


def test_sessions__go_on_closing_when_whoever_closes_them_is_cancelled(
    tmp_path: Path, fake: FakeModelServer, held: Sessions
) -> None:
    closing, go_on = asyncio.Event(), asyncio.Event()
    ended: list[str] = []

    async def make() -> Session:
        session = session_at(tmp_path, fake)
        close = session.close

        async def slowly() -> None:
            closing.set()
            await go_on.wait()
            await close()
            ended.append("closed")

        session.close = slowly  # type: ignore[method-assign]
        return session

    async def work() -> None:
        await held.open("a", make)
        impatient = asyncio.create_task(held.close("a"))
        await closing.wait()
        impatient.cancel()
        with pytest.raises(asyncio.CancelledError):
            await impatient
        everything = asyncio.create_task(held.close_all())
        await asyncio.sleep(0)
        assert not everything.done()
        go_on.set()
        await everything
        assert ended == ["closed"]

    run(work())
