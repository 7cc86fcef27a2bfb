"""What planning asks of an object storage, counted; and that what is kept of an input manifest is what was planned."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from engine.runs import make_run, output_of
from fakes.odd_s3_server import OddS3Server

from tasks.clients.storage.storage import Storage
from tasks.clients.tables import read_plan
from tasks.domain.credentials import Credentials
from tasks.domain.errors import SpecificationError
from tasks.domain.fingerprint import described
from tasks.domain.paths import Address
from tasks.domain.run import Plan, Run
from tasks.domain.settings import Settings
from tasks.engine.fingerprinting import fingerprint_of
from tasks.engine.planning import make_plan

SHARD_ITEMS = 100


def manifest_of(count: int) -> bytes:
    return "".join(f'{{"source": "s3://data/in/{number}.jpg"}}\n' for number in range(count)).encode()


def run_over(source: str, output: str, package: str | None = None, **fields: str) -> Run:
    made = make_run("http://127.0.0.1:1", output, package=package)
    return made.model_copy(update={"service": made.service.model_copy(update={"input_path": source, **fields})})


def plan(run: Run, server: OddS3Server | None = None, storage: Storage | None = None) -> Plan:
    async def work() -> Plan:
        known = {}
        if server is not None:
            names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
            known = {"s3": Credentials.model_validate({"endpoint_url": server.endpoint, **names})}
        used = storage or Storage(Settings(), known)
        try:
            return await make_plan(run, Settings(shard_items=SHARD_ITEMS), used, output_of(run, used))
        finally:
            await used.close()

    return asyncio.run(work())


def asked(server: OddS3Server, run: Run) -> Counter[str]:
    """The requests so far by kind; what a run's names have of its own is left out."""
    found: Counter[str] = Counter()
    for line in server.lines:
        method, _, target = line.partition(" ")
        path, _, query = target.replace(run.task_id, "ID").partition("?")
        if "list-type" in query:
            prefix = next(part for part in query.split("&") if part.startswith("prefix="))
            path = f"{path}?{prefix}"
        found[f"{method} {path.replace('%2F', '/')}"] += 1
    return found


def shards_written(found: Counter[str]) -> int:
    return sum(count for name, count in found.items() if name.startswith("PUT ") and "/shards/" in name)


def test_planning_a_manifest_reads_it_once() -> None:
    with OddS3Server({"data": {"in.manifest": manifest_of(1000)}, "results": {}}) as server:
        run = run_over("s3://data/in.manifest", "s3://results/out")
        assert plan(run, server).items == 1000
        found = asked(server, run)
        assert found["GET /data/in.manifest"] == 1
        assert shards_written(found) == 1000 / SHARD_ITEMS
        # Beside them: whether it has published, whether it has a plan, and the plan.
        others = found.total() - 1 - shards_written(found)
        assert others <= 4, found


@pytest.mark.parametrize("lists", [1, 3])
def test_planning_a_folder_asks_for_its_pages_only(lists: int) -> None:
    keys = {f"in/{number:05d}.jpg": b"x" for number in range(lists * 1000 - 1)}
    with OddS3Server({"data": keys, "results": {}}) as server:
        run = run_over("s3://data/in", "s3://results/out")
        assert plan(run, server).items == len(keys)
        found = asked(server, run)
        assert found["GET /data?prefix=in/"] == lists
        assert sum(count for name, count in found.items() if " /data/in/" in name) == 0  # sizes come from the listing
        assert found.total() - lists - shards_written(found) <= 5, found


def test_planning_again_reads_the_manifest_once_and_writes_nothing() -> None:
    with OddS3Server({"data": {"in.manifest": manifest_of(1000)}, "results": {}}) as server:
        run = run_over("s3://data/in.manifest", "s3://results/out")
        first = plan(run, server)
        server.lines.clear()
        assert plan(run, server) == first
        found = asked(server, run)
        assert found["GET /data/in.manifest"] == 1
        assert not [name for name in found if not name.startswith(("GET ", "HEAD "))]


@pytest.mark.parametrize("again", [False, True])
def test_a_plan_keeps_the_same_fingerprint_as_one_that_was_read_for_itself(tmp_path: Path, again: bool) -> None:
    (tmp_path / "in.manifest").write_bytes(manifest_of(7))
    fields = {}
    if again:
        earlier = tmp_path / "infer-result-00000000-0000-0000-0000-000000000000.manifest"
        line = {"source": "s3://data/in/1.jpg", "result": "FAILED", "error_message": "no"}
        earlier.write_text(json.dumps(line) + "\n", encoding="utf-8")
        fields = {"failed_of": str(earlier)}
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "run.sh").write_text("exec serve\n", encoding="utf-8")
    run = run_over(str(tmp_path / "in.manifest"), str(tmp_path / "out"), str(tmp_path / "package"), **fields)
    made = plan(run)
    assert made.items == (1 if again else 7)
    assert made.fingerprint == asyncio.run(fingerprint_of(run, Storage(Settings()))).fields
    assert made.fingerprint["input manifest"] == described(manifest_of(7))


class Overwritten(Storage):
    """A storage on which somebody overwrites a manifest once it has been read."""

    def __init__(self, path: Path, contents: list[bytes]) -> None:
        super().__init__(Settings())
        self._path, self._contents = path, contents

    async def stream(self, address: Address) -> AsyncGenerator[bytes]:
        async for chunk in super().stream(address):
            yield chunk
        if address.path == str(self._path) and self._contents:
            self._path.write_bytes(self._contents.pop(0))


def test_a_manifest_that_is_overwritten_meanwhile_is_kept_as_it_was_planned(tmp_path: Path) -> None:
    path = tmp_path / "in.manifest"
    path.write_bytes(manifest_of(3))
    run = run_over(str(path), str(tmp_path / "out"))
    made = plan(run, storage=Overwritten(path, [manifest_of(5)]))
    assert made.fingerprint["input manifest"] == described(manifest_of(3))
    stored = tmp_path / "out" / run.names.scratch / made.shards[0].plan_name
    assert len(read_plan(stored.read_bytes(), owner=made.shards[0].owner(run.task_id))) == made.items == 3
    with pytest.raises(SpecificationError, match="input manifest"):  # it is another one now, and the plan is not its
        plan(run)
    path.write_bytes(manifest_of(3))
    assert plan(run) == made
