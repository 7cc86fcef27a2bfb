"""A model server that somebody else starts, kills and starts again: the session goes on when it is back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from clients.support import run
from engine.runs import Shard, local_items, make_run
from fakes.model_server import FakeModelServer
from fakes.processes import FakeDidNotStart, alive, free_port, poll

from tasks.clients.instances.sidecar import Sidecar
from tasks.domain.errors import ModelServerError
from tasks.domain.package import Health
from tasks.engine.shard import infer_shard


@contextmanager
def kept_running(server: FakeModelServer, first: Callable[[], bool] = lambda: True) -> Iterator[None]:
    """Starts the server once ``first`` says so, and again whenever it has died, as a kubelet does."""
    over = threading.Event()

    def keep() -> None:
        poll(lambda: over.is_set() or first(), "the first start")
        while not over.is_set():
            if server.process is None or not alive(server.pid):
                with suppress(FakeDidNotStart):  # an item has killed it already
                    server.start()
            over.wait(0.05)
        server.stop()

    keeper = threading.Thread(target=keep)
    keeper.start()
    try:
        yield
    finally:
        over.set()
        keeper.join()


@pytest.fixture
def server(tmp_path: Path) -> FakeModelServer:
    """A model server at a port of its own that is not started yet."""
    return FakeModelServer("--state", str(tmp_path / "state"), "--count-items", port=free_port())


def shard_at(server: FakeModelServer, tmp_path: Path, contents: dict[str, bytes], **fields: object) -> Shard:
    made = make_run("/package", str(tmp_path / "out"), package="/package", health={"period_seconds": 0.2}, **fields)
    shard = Shard(made.model_copy(update={"serving": "sidecar"}), local_items(tmp_path / "in", contents))
    shard.settings = shard.settings.model_copy(update={"sidecar_port": server.port})
    return shard


def test_session__waits_for_a_sidecar_that_is_started_later(server: FakeModelServer, tmp_path: Path) -> None:
    shard = shard_at(server, tmp_path, {f"{number}.jpg": b"item %d" % number for number in range(40)})

    async def work() -> None:
        session = shard.session()
        try:
            await shard.store_plan(session)
            session.start_soon()
            asked = session.group.instances[0]
            while asked.server is None or asked.server.health_detail != "no connection (Connection refused)":
                await session.ending.pause(0.01)
            assert not session.group.ready and session.group.deaths == 0
            with kept_running(server):
                _, shard.report_name, _, _ = await infer_shard(session, shard.ref)
                await shard.read_report(session)
        finally:
            await session.close()

    run(work())
    assert set(shard.messages.values()) == {""}


def test_session__goes_on_when_a_sidecar_that_died_is_back(server: FakeModelServer, tmp_path: Path) -> None:
    contents = {f"{number:03d}.jpg": b"item %d" % number for number in range(200)}
    contents["050.jpg"] = b"FAIL:die:1"
    contents["120.jpg"] = b"FAIL:die:1"
    shard = shard_at(server, tmp_path, contents)
    with kept_running(server):
        shard.infer()
        assert server.stats()["starts"] >= 2
    assert set(shard.messages.values()) == {""}
    assert shard.tally.retries >= 2


def test_session__finds_the_item_that_kills_a_sidecar(server: FakeModelServer, tmp_path: Path) -> None:
    contents = {f"{number:03d}.jpg": b"item %d" % number for number in range(60)} | {"030.jpg": b"FAIL:die"}
    shard = shard_at(server, tmp_path, contents)
    with kept_running(server):
        shard.infer()
    messages = shard.messages
    assert messages.pop("030.jpg") == "model server died 3 times on this item"
    assert set(messages.values()) == {""}


def test_session__of_a_sidecar_that_never_comes_says_where_its_output_is(
    server: FakeModelServer, tmp_path: Path
) -> None:
    shard = shard_at(server, tmp_path, {"1.jpg": b"x"})

    async def work() -> None:
        session = shard.session()
        session.group._timeout_seconds = 0.5
        try:
            with pytest.raises(
                ModelServerError,
                match=r"health: no connection \(Connection refused\)\. What it printed is in the log of the",
            ):
                await session.start()
        finally:
            await session.close()

    run(work())


def test_sidecar__ends_when_nothing_listens_any_more(server: FakeModelServer) -> None:
    async def work() -> None:
        with kept_running(server):
            sidecar = Sidecar(server.port, {})
            await sidecar.ready(Health())
            assert sidecar.running
        await sidecar.command_ended()
        assert not sidecar.running
        await sidecar.stop()

    run(work())
