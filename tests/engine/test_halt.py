"""A run that somebody stops: what was done stays done, what is under way is dropped, every item has its outcome."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from clients.support import FAKE_MODEL_SERVER, processes_with, run
from engine.runs import ROWS, Shard, local_items, make_run
from fakes.model_server import FakeModelServer
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.run import DeadlinePassed, Plan, Run, RunStopped
from tasks.domain.settings import Settings
from tasks.domain.stop import BY_HAND, deadline_passed
from tasks.engine.ending import unless_stopped
from tasks.engine.planning import make_plan
from tasks.engine.progress import progress_of
from tasks.engine.session import Session
from tasks.engine.sessions import Sessions
from tasks.engine.shard import infer_shard

STOPPED = "The run was stopped before it was processed."
DONE = 20
TOO_LATE = "Not processed: the run was stopped early because its deadline (0.1 minutes) had passed."


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
            session.halt(BY_HAND)
            session.halt(BY_HAND)
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
        assert session.progress.stopped == session.halted == BY_HAND

    run(work())
    assert set(shard.messages.values()) == {STOPPED}
    assert "/" not in fake.stats()["requests"]


def ending_in(seconds: float, run_: Run) -> Run:
    """The same run with a deadline."""
    service = run_.service.model_copy(update={"deadline_minutes": 0.1})
    return run_.model_copy(update={"deadline_at": time.time() + seconds, "service": service})


def test_deadline__drops_what_hangs_and_accounts_for_every_item(tmp_path: Path, fake: FakeModelServer) -> None:
    contents = {f"{number:02}": b"x" if number < DONE else b"FAIL:hang %d" % number for number in range(60)}
    run_ = ending_in(2, make_run(fake.url, str(tmp_path / "out")))
    shard = Shard(run_, local_items(tmp_path / "in", contents)).infer()
    assert shard.stopped == deadline_passed(0.1)
    # How many were done in time depends on the machine.
    assert set(list(shard.messages.values())[:DONE]) <= {"", TOO_LATE}
    assert set(list(shard.messages.values())[DONE:]) == {TOO_LATE}


def test_deadline__that_has_passed_already_lets_nothing_be_sent(tmp_path: Path, fake: FakeModelServer) -> None:
    run_ = ending_in(-1, make_run(fake.url, str(tmp_path / "out")))
    shard = Shard(run_, local_items(tmp_path / "in", {"1": b"x", "2": b"x"})).infer()
    assert set(shard.messages.values()) == {TOO_LATE}
    assert "/" not in fake.stats()["requests"]


def test_deadline__that_is_not_reached_changes_nothing(tmp_path: Path, fake: FakeModelServer) -> None:
    run_ = ending_in(3600, make_run(fake.url, str(tmp_path / "out")))
    shard = Shard(run_, local_items(tmp_path / "in", {"1": b"x", "2": b"x"})).infer()
    assert (shard.stopped, set(shard.messages.values())) == (None, {""})


def test_deadline__while_the_instances_start_leaves_no_process(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    mark = f"--health-when={tmp_path}/never"
    (package / "run.sh").write_text(f"exec {sys.executable} {FAKE_MODEL_SERVER} {mark}\n")
    run_ = ending_in(1, make_run(str(package), str(tmp_path / "out"), package=str(package)))
    shard = Shard(run_, local_items(tmp_path / "in", {"1": b"x", "2": b"x"})).infer()
    assert set(shard.messages.values()) == {TOO_LATE}
    assert not processes_with(mark)


@pytest.mark.parametrize("by_hand", [True, False])
def test_planning__of_a_storage_that_does_not_answer_ends_with_the_run_and_leaves_nothing(
    tmp_path: Path, by_hand: bool
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # it listens, and that is all
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        keys = {"s3": Credentials(endpoint_url=endpoint, access_key_id="a", secret_access_key="b")}
        run_ = make_run("http://127.0.0.1:9", str(tmp_path / "out"))
        service = run_.service.model_copy(update={"input_path": "s3://bucket/in"})
        run_ = ending_in(3600 if by_hand else 2, run_.model_copy(update={"service": service}))

        async def work() -> Plan:
            storage = Storage(Settings(), keys)
            output = OutputFolder(storage, run_.output_address, run_.names.scratch)
            try:
                planning = make_plan(run_, Settings(), storage, output)
                asyncio.get_running_loop().call_later(1, halt)
                return await asyncio.wait_for(
                    unless_stopped(planning, run_.task_id, run_.deadline_at, 0.1, while_="its input was being listed"),
                    DEADLINE_SECONDS,
                )
            finally:
                await storage.close()

        def halt() -> None:
            progress_of(run_.task_id).stopped = BY_HAND if by_hand else None

        with pytest.raises(RunStopped if by_hand else DeadlinePassed) as ended:
            run(work())
    assert "while its input was being listed" in str(ended.value) and "nothing was sent" in str(ended.value)
    assert not os.listdir(tmp_path / "out")
