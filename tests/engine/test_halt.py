"""A run that somebody stops: what was done stays done, what is under way is dropped, every item has its outcome."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.support import FAKE_MODEL_SERVER, processes_with, run
from engine.runs import ROWS, Shard, local_items, make_run
from fakes.model_server import FakeModelServer
from fakes.processes import DEADLINE_SECONDS

from tasks.engine.session import Session, Sessions
from tasks.engine.shard import infer_shard

STOPPED = "The run was stopped before it was processed."
DONE = 20


def halted_when(shard: Shard, ready: Callable[[Session], bool]) -> Session:
    """Infer the shard in a session that is halted once `ready` says so; the session, closed."""

    async def work() -> Session:
        session = shard.session()
        try:
            await shard.store_plan(session)
            inferring = asyncio.create_task(infer_shard(session, shard.ref))
            while not ready(session):
                assert not inferring.done()
                await asyncio.sleep(0.01)
            session.halt()
            session.halt()
            await asyncio.wait_for(inferring, DEADLINE_SECONDS)
            await shard.read_report(session)
        finally:
            await session.close()
        return session

    session: Session = run(work())
    assert [outcome.number for outcome in shard.outcomes] == [item.number for item in shard.items]
    return session


def test_halt__keeps_what_was_done_and_drops_what_is_under_way(tmp_path: Path, fake: FakeModelServer) -> None:
    never = f"FAIL:until:{tmp_path}/never".encode()
    contents = {f"{number:03}": b"x" if number < DONE else b"%s %d" % (never, number) for number in range(300)}
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", contents))
    session = halted_when(shard, lambda session: session.progress.report.done == DONE)
    assert session.stopped and session.not_processed == STOPPED
    assert [outcome.message for outcome in shard.outcomes] == [""] * DONE + [STOPPED] * (300 - DONE)
    assert (shard.tally.successful, shard.tally.failed) == (DONE, 300 - DONE)
    results = Path(shard.run.output, shard.run.names.result_folder)
    assert sorted(os.listdir(results)) == [f"{number:03}_result.txt" for number in range(DONE)]


def test_halt__while_the_instances_start_ends_at_once_and_leaves_no_process(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    mark = f"--health-when={tmp_path}/never"
    (package / "run.sh").write_text(f"touch {tmp_path}/begun\nexec python {FAKE_MODEL_SERVER} {mark}\n")
    run_ = make_run(str(package), str(tmp_path / "out"), package=str(package), instances=2)
    shard = Shard(run_, local_items(tmp_path / "in", {f"{number}": b"x" for number in range(5)}))
    halted_when(shard, lambda session: (tmp_path / "begun").exists())
    assert [outcome.message for outcome in shard.outcomes] == [STOPPED] * 5
    assert not processes_with(mark)


def test_halt__of_rows_leaves_the_table_unfinished(tmp_path: Path, fake: FakeModelServer) -> None:
    rows = b"".join(b"%d,FAIL:until:%s/never\n" % (number, bytes(tmp_path)) for number in range(50))
    run_ = make_run(fake.url, str(tmp_path / "out"), request=ROWS, path="/", max_concurrency=2)
    rule = json.loads(json.dumps(run_.rule).replace('"b": {"type": "number"', '"b": {"type": "string"'))
    run_ = run_.model_copy(update={"rule": rule})
    shard = Shard(run_, local_items(tmp_path / "in", {"1.csv": rows, "2.csv": rows}))
    halted_when(shard, lambda session: fake.stats()["requests"].get("/", 0) == 2)
    assert set(shard.messages.values()) == {STOPPED}
    assert not shard.has_result("1.csv") and not shard.has_result("2.csv")


@pytest.mark.parametrize("early", [True, False])
def test_halt__of_a_run_by_its_id_before_or_after_its_session_is_open(
    tmp_path: Path, fake: FakeModelServer, early: bool
) -> None:
    shard = Shard(make_run(fake.url, str(tmp_path / "out")), local_items(tmp_path / "in", {"1": b"x", "2": b"x"}))
    sessions, task_id = Sessions(), shard.run.task_id

    async def make() -> Session:
        return shard.session()

    async def work() -> None:
        if early:
            await sessions.halt(task_id)
        session = await sessions.open(task_id, make)
        if not early:
            await sessions.halt(task_id)
        await sessions.halt("another run")
        await shard.store_plan(session)
        await infer_shard(session, shard.ref)
        await shard.read_report(session)
        await sessions.close(task_id)
        assert session.progress.stop_requested and session.halted

    run(work())
    assert set(shard.messages.values()) == {STOPPED}
    assert "/" not in fake.stats()["requests"]
