"""An instance that does not reach the storage any more, in distributed mode: its items are left to others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from clients.support import run
from engine.runs import Shard, items_of, make_run, no_environment, partial_reports
from fakes.model_server import FakeModelServer
from fakes.processes import free_port
from fakes.s3_server import S3Server

from tasks.domain.credentials import Credentials
from tasks.domain.errors import ModelServerError, StorageError
from tasks.engine.session import Session
from tasks.engine.shard import infer_shard

FREE, HELD = 10, 2


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def way(port: int, endpoint: str) -> AsyncIterator[None]:
    """The way to a server, by another port; at the end, connections are cut, and the port refuses further ones."""
    to = urlsplit(endpoint)
    open_: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(to.hostname, to.port)
        open_.update((writer, back))
        await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for writer in open_:
            writer.close()


def session_of(shard: Shard, number: int | None) -> Session:
    """Instance ``number`` of several, or all of a run's."""
    return Session(shard.run, shard.settings, shard.credentials, no_environment, len(shard.items), number=number)


@pytest.fixture
def shard(tmp_path: Path, fake: FakeModelServer) -> Shard:
    """A shard whose last items wait for the file `gate`, on a bucket; its keys are not known yet."""
    made = make_run(fake.url, "s3://data/out", error_threshold=0)
    made = made.model_copy(update={"service": made.service.model_copy(update={"input_path": "s3://data/in"})})
    items = items_of("s3://data/in", [f"{number:02d}" for number in range(FREE + HELD)])
    return Shard(made, items, report_seconds=0.1, storage_retry_seconds=1)


@pytest.mark.parametrize("number", [0, None])
def test_storage__that_is_not_reached_costs_no_item_where_others_may_go_on(
    shard: Shard, tmp_path: Path, fake: FakeModelServer, number: int | None
) -> None:
    gate, port = tmp_path / "gate", free_port()

    async def work(s3: S3Server) -> None:
        session = session_of(shard, number)
        try:
            async with way(port, s3.endpoint):
                await shard.store_plan(session)
                inferring = asyncio.create_task(session.during(infer_shard(session, shard.ref)))
                while len(await partial_reports(session)) < FREE or sum(fake.stats()["seen"].values()) < HELD:
                    assert not inferring.done(), inferring
                    await asyncio.sleep(0.05)
            gate.touch()
            with pytest.raises(StorageError if number is None else ModelServerError, match="reach") as raised:
                await inferring
            if number is None:
                assert session.ending.failed_items == HELD and not session.lost
                return
            assert str(raised.value) == "Instance 0 is lost: it does not reach s3://data."
            assert session.lost and not session.ending.failed_items and not session.ending.stopped
            async with way(port, s3.endpoint):
                while session.reach.cut_off:
                    await asyncio.sleep(0.05)
                assert not session.lost
                _, shard.report_name, _, tally = await infer_shard(session, shard.ref)
                await shard.read_report(session)
                assert (tally.successful, tally.failed) == (FREE + HELD, 0)
                assert [one.number for one in shard.outcomes] == list(range(FREE + HELD))
        finally:
            await session.close()

    with S3Server(tmp_path / "s3") as s3:
        for position in range(FREE + HELD):
            held = f" FAIL:until:{gate}" if position >= FREE else ""
            s3.put("data", f"in/{position:02d}", f"{position}{held}".encode())
        shard.credentials["s3"] = Credentials(
            endpoint_url=f"http://127.0.0.1:{port}", access_key_id=s3.access_key, secret_access_key=s3.secret_key
        )
        run(work(s3))


def test_reports__of_two_processes_with_the_same_shard_have_different_names(shard: Shard, tmp_path: Path) -> None:
    async def work(s3: S3Server) -> None:
        lost, other = session_of(shard, 1), session_of(shard, 1)
        try:
            await shard.store_plan(lost)
            both = await asyncio.gather(infer_shard(lost, shard.ref), infer_shard(other, shard.ref))
            names = {name for _, name, _, _ in both}
            assert len(names) == 2
            for shard.report_name in names:
                await shard.read_report(other)
                assert [one.number for one in shard.outcomes] == list(range(FREE + HELD))
        finally:
            await lost.close()
            await other.close()

    with S3Server(tmp_path / "s3") as s3:
        for position in range(FREE + HELD):
            s3.put("data", f"in/{position:02d}", str(position).encode())
        shard.credentials["s3"] = Credentials(
            endpoint_url=s3.endpoint, access_key_id=s3.access_key, secret_access_key=s3.secret_key
        )
        run(work(s3))
