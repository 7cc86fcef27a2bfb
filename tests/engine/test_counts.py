"""What an item costs, in counts that a slow machine does not change: requests, connections, object calls, copies."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import obstore
import pytest
from clients.support import run as run_on_loop
from engine.runs import ROWS, Shard, items_of, local_items, make_run
from fakes.model_server import FakeModelServer
from fakes.s3_server import S3Server
from pydantic import SecretStr

from tasks.clients.model_http.model_server import ModelClient
from tasks.domain.concurrency import START
from tasks.domain.credentials import Credentials
from tasks.domain.request import FileForm
from tasks.domain.rows_per_request import FIRST

ITEMS = 60
MIB = 1 << 20


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """Calls of the object store's client so far, by verb and by the first folder of the key; they all go through."""
    counted: Counter[tuple[str, str]] = Counter()

    def counting(verb: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def counts(store: Any, where: Any = None, *others: Any, **options: Any) -> Any:
            counted[verb, str(where or "").split("/")[0]] += 1
            return call(store, where, *others, **options)

        return counts

    verbs = ("get_async", "put_async", "head_async", "list", "list_with_delimiter_async", "delete_async")
    for verb in verbs:
        monkeypatch.setattr(obstore, verb, counting(verb, getattr(obstore, verb)))
    return counted


def test_object__is_read_once_and_written_once(
    s3_server: S3Server, fake: FakeModelServer, calls: Counter[tuple[str, str]]
) -> None:
    names = [f"{number:03}.bin" for number in range(ITEMS)]
    s3_server.make_bucket("counts")
    for name in names:
        s3_server.put("counts", f"in/{name}", name.encode() * 100)
    run = make_run(fake.url, "s3://counts", max_concurrency=START)  # the limit may climb while the machine is busy
    shard = Shard(run, items_of("s3://counts/in", names, dict.fromkeys(names, 700)))
    shard.credentials["s3"] = Credentials(
        endpoint_url=s3_server.endpoint,
        access_key_id=s3_server.access_key,
        secret_access_key=SecretStr(s3_server.secret_key),
    )
    shard.infer()
    assert set(shard.messages.values()) == {""}
    names_of_run = run.names
    assert dict(calls) == {
        ("get_async", "in"): ITEMS,
        ("put_async", names_of_run.result_folder): ITEMS,
        # The plan and the report, written and read (by the test, too); what is reported already; partial reports.
        ("put_async", names_of_run.scratch): 2,
        ("get_async", names_of_run.scratch): 2,
        ("list", names_of_run.scratch): 1,
    }
    stats = fake.stats()
    assert stats["requests"]["/"] == ITEMS
    assert stats["connections"] <= START + 3  # those who ask for health and counts have their own


def test_connections__are_as_many_as_requests_at_once(tmp_path: Path, fake: FakeModelServer) -> None:
    files = {f"{number:03}.bin": b"%d" % number for number in range(400)}
    run = make_run(fake.url, str(tmp_path / "out"), max_concurrency=5)
    shard = Shard(run, local_items(tmp_path / "in", files)).infer()
    stats = fake.stats()
    assert set(shard.messages.values()) == {""}
    assert stats["requests"]["/"] == len(files) == sum(stats["items"].values())
    assert stats["max_in_flight"] <= 5
    assert stats["connections"] <= 5 + 3


@pytest.mark.parametrize("rows_per_request", [1, "auto"])
def test_rows__are_sent_once_each(tmp_path: Path, fake: FakeModelServer, rows_per_request: int | str) -> None:
    rows = 640
    table = b"".join(b"%d,%d\n" % (number, number) for number in range(rows))
    run = make_run(fake.url, str(tmp_path / "out"), request=ROWS, path="/iris", rows_per_request=rows_per_request)
    shard = Shard(run, local_items(tmp_path / "in", {"1.csv": table})).infer()
    assert shard.messages == {"1.csv": ""}
    requests = fake.stats()["requests"]["/iris"]
    if rows_per_request == 1:
        assert requests == rows
    else:  # those of the first request go both ways, later one of some requests
        assert requests <= rows / FIRST + FIRST + 16


def test_body__carries_the_bytes_that_were_read_themselves() -> None:
    data = b"x" * 1000
    assert any(part is data for part in FileForm("file").body("1.jpg", data).parts)


def test_bytes__of_a_large_item_are_held_once(tmp_path: Path, fake: FakeModelServer) -> None:
    size = 8 * MIB
    run = make_run(fake.url, str(tmp_path / "out"))
    small = Shard(make_run(fake.url, str(tmp_path / "small")), local_items(tmp_path / "a", {"1.bin": b"x"})).infer()
    assert small.messages == {"1.bin": ""}  # whatever is imported late is there now
    shard = Shard(run, local_items(tmp_path / "in", {"1.bin": b"x" * size}))
    tracemalloc.start()
    try:
        shard.infer()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert shard.messages == {"1.bin": ""}
    assert size <= peak < 1.25 * size


@pytest.mark.parametrize("fault", ["503:1", "close:1"])
def test_bytes__of_requests_that_are_sent_again_are_not_kept(tmp_path: Path, fault: str) -> None:
    size, items = 1 * MIB, 24
    files = {f"{number}.bin": f"FAIL:{fault} {number} ".encode() + b"x" * size for number in range(items)}
    gc.collect()
    gc.disable()  # only a search for garbage would free what is in a circle
    try:
        with FakeModelServer() as server:
            small = Shard(
                make_run(server.url, str(tmp_path / "a")), local_items(tmp_path / "b", {"1.bin": b"x"})
            ).infer()
            assert small.messages == {"1.bin": ""}
            run = make_run(server.url, str(tmp_path / "out"), max_concurrency=1)
            shard = Shard(run, local_items(tmp_path / "in", files), bytes_in_flight=4 * MIB, max_item_bytes=2 * MIB)
            del files
            tracemalloc.start()
            shard.infer()
            held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    assert set(shard.messages.values()) == {""}
    assert shard.tally.retries == items
    assert peak < 10 * MIB
    assert held < 2 * MIB


def test_answer__of_many_pieces_is_put_together_once(fake: FakeModelServer) -> None:
    size = 8 * MIB
    body = FileForm("file").body("1.bin", b"x" * size)

    async def work() -> int:
        client = ModelClient(fake.url, "POST", "/echo", 60)
        try:
            await client.predict(FileForm("file").body("0.bin", b"x"))
            tracemalloc.start()
            answer = await client.predict(body)
            assert answer.data == body.data
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            await client.close()

    assert run_on_loop(work()) < 4.5 * size  # its pieces, itself, and the copy that it is compared with
