"""Runs for tests: a validated run, its stored plan, and its shards, without Prefect."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.support import run as run_on_loop

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.clients.tables import plan_bytes, read_report
from tasks.domain.credentials import Credentials
from tasks.domain.instance import GivenEnvironment
from tasks.domain.item import Item
from tasks.domain.mapping import generate
from tasks.domain.package import PackageConfig
from tasks.domain.paths import result_name
from tasks.domain.pool import Flavor
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import Run, ShardRef
from tasks.domain.service import BatchService
from tasks.domain.settings import Settings
from tasks.domain.stop import Stop
from tasks.engine.session import Session
from tasks.engine.shard import infer_shard

FILE = {"type": "object", "properties": {"images": {"type": "file"}}}
TEXT = {"type": "object", "properties": {"text": {"type": "string"}, "n": {"type": "number"}}}
ROWS = {
    "type": "object",
    "properties": {
        "data": {
            "type": "object",
            "properties": {
                "req_data": {
                    "type": "array",
                    "items": [{"type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}}],
                }
            },
        }
    },
}


def make_run(
    model: str, output: str, *, request: Mapping[str, Any] = FILE, path: str = "/", package: str | None = None,
    health: Mapping[str, Any] | None = None, response: Mapping[str, Any] | None = None, **fields: Any,
) -> Run:  # fmt: skip
    """A validated run against the model server at ``model``, or of a package with run.sh."""
    config = PackageConfig.model_validate(
        {
            "model_type": "Image",
            "apis": [{"url": path, "request": {"data": request}, "response": response}],
            "health": health or {},
        }
    )
    service = BatchService(name="tested", model=model, input_path="/in", output_path=output, **fields)
    return Run(
        task_id=str(uuid.uuid4()), service=service, serving="running" if package is None else "boot-file",
        package=package, config=config, request_path=path, rule=None if request is FILE else generate(dict(request)),
        output=output, flavor=Flavor(name="test", cpu=1, memory_gb=1),
    )  # fmt: skip


def items_of(base: str, names: Sequence[str], sizes: Mapping[str, int] | None = None) -> list[Item]:
    """Items of a folder."""
    return [
        Item(number, f"{base}/{name}", f"{base}/{name}", (sizes or {}).get(name, -1), result_name(name), "")
        for number, name in enumerate(names)
    ]


def local_items(folder: Path, contents: Mapping[str, bytes]) -> list[Item]:
    """Files, written, and their items."""
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return items_of(str(folder), [*contents], {name: len(data) for name, data in contents.items()})


def shard_of(items: Sequence[Item], number: int = 0) -> ShardRef:
    """The shard that holds these items."""
    return ShardRef(number=number, first_item=items[0].number, items=len(items), bytes=0)


async def no_environment() -> Mapping[str, str]:
    """The environment of the model server."""
    return GivenEnvironment()


class Shard:
    """One shard of a run, which can be inferred more than once. Its outcomes and tally after it."""

    def __init__(self, run: Run, items: Sequence[Item], **settings: Any) -> None:
        self.run = run
        self.items = items
        self.ref = shard_of(items)
        self.number: int | None = None
        """Of the instance, if other processes have others."""
        self.settings = Settings(**settings)
        self.credentials: dict[str, Credentials] = {}
        self.outcomes: list[Outcome] = []
        self.tally = Tally()
        self.stopped: Stop | None = None
        self.report_name = self.ref.report_name(run.attempt)
        self.digest = ""

    def session(self) -> Session:
        """A session on the engine's loop."""
        session = Session(self.run, self.settings, self.credentials, no_environment, number=self.number)
        session.planned_items = len(self.items)
        return session

    async def store_plan(self, session: Session) -> None:
        """Store the plan, as planning does."""
        await session.output.make()
        scratch = session.output.scratch.name
        await session.output.write(
            f"{scratch}/{self.ref.plan_name}", plan_bytes(self.items, self.ref.owner(self.run.task_id))
        )

    async def read_report(self, session: Session) -> None:
        """Read the shard's report."""
        scratch = session.output.scratch.name
        self.outcomes, self.tally = read_report(
            await session.output.read(f"{scratch}/{self.report_name}"), self.ref.owner(self.run.task_id)
        )

    def infer(self) -> Shard:
        """Infer it, in a session of its own."""
        run_on_loop(self.infer_async())
        return self

    async def infer_async(self) -> None:
        """The same, from the engine's loop."""
        session = self.session()
        try:
            await self.store_plan(session)
            _, self.report_name, self.digest, returned = await infer_shard(session, self.ref)
            await self.read_report(session)
            assert returned.to_json() == self.tally.to_json()
            self.stopped = session.stopped
        finally:
            await session.close()
        assert [outcome.number for outcome in self.outcomes] == [item.number for item in self.items]

    @property
    def messages(self) -> dict[str, str]:
        """What each item's outcome says, by the last part of its source."""
        return {outcome.source.rpartition("/")[2]: outcome.message for outcome in self.outcomes}

    def result(self, name: str) -> bytes:
        """A result file on a local disk."""
        return Path(self.run.output, self.run.names.result_folder, f"{name}_result.txt").read_bytes()

    def has_result(self, name: str) -> bool:
        """Whether a result file is on the local disk."""
        return Path(self.run.output, self.run.names.result_folder, f"{name}_result.txt").exists()


async def partial_reports(session: Session) -> list[Outcome]:
    """The outcomes in partial reports."""
    found: list[Outcome] = []
    scratch = session.output.scratch.name
    for name in await session.output.list(f"{scratch}/shards"):
        if not name.rpartition("/")[2].startswith("part-"):
            continue
        try:
            data = await session.output.read(f"{scratch}/shards/{name}")
            found += read_report(data, f"{session.run.task_id}/shards/{name.partition('/')[0]}")[0]
        except ObjectError:
            await asyncio.sleep(0)
    return found


def output_of(run: Run, storage: Storage) -> OutputFolder:
    """The output folder of a run."""
    return OutputFolder(storage, run.output_address, run.names.scratch)
