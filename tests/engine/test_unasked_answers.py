"""A model server that sends more than it was asked for: no item ever has another one's answer, or a part of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from clients.support import run
from engine.runs import ROWS, Shard, local_items, make_run
from fakes.odd_model_server import (
    Odd,
    OddServer,
    answer,
    at_random,
    cut_lengths,
    followed_by,
    odd_server,
    twice_after,
    twice_by_a_timer,
)  # fmt: skip

from tasks.engine.reports import NOTE

ITEMS = 150


def inferred(
    folder: Path, odd: Odd, seconds: float = 0.0, items: int = ITEMS, **fields: object
) -> tuple[Shard, OddServer]:
    """A shard of items that the server answered."""
    contents = {f"{number:03d}.bin": b"item %03d" % number for number in range(items)}
    inputs = local_items(folder / "in", contents)

    async def work() -> tuple[Shard, OddServer]:
        async with odd_server(odd, seconds) as server:
            shard = Shard(make_run(server.url, str(folder / "out"), **fields), inputs)
            await shard.infer_async()
            return shard, server

    return run(work())


def wrong(shard: Shard, items: int = ITEMS) -> list[int]:
    """Items whose result file, if they have one, is not the echo of their own bytes."""
    bad = []
    for number in range(items):
        name = f"{number:03d}.bin"
        found = shard.result(name) if shard.has_result(name) else b""
        succeeded = not shard.messages[name]
        if succeeded != bool(found) or (succeeded and b"\r\n\r\nitem %03d\r\n--thresher-" % number not in found):
            bad.append(number)
    return bad


@pytest.mark.parametrize(
    "odd",
    [
        twice_after(0.003), twice_after(0.003, every=10), twice_after(0.0), twice_after(0.05), twice_by_a_timer(0.003),
        twice_by_a_timer(0.003, every=10), twice_by_a_timer(0.03), followed_by(answer(b"other")),
        followed_by(answer(b"other"), every=20), followed_by(answer(b"other"), glued=False),
        followed_by(answer(b"other")[:20], every=149), followed_by(b"HTTP/1.1 100 Continue\r\n\r\n", glued=False),
    ],
)  # fmt: skip
def test_items__of_a_server_that_answers_twice_have_their_own_answers(tmp_path: Path, odd: Odd) -> None:
    shard, _ = inferred(tmp_path, odd)
    assert wrong(shard) == []
    assert [message for message in shard.messages.values() if message and "more bytes than" not in message] == []
    assert NOTE in shard.tally.notes


def test_items__after_the_first_doubt_have_connections_of_their_own(tmp_path: Path) -> None:
    shard, server = inferred(tmp_path, twice_after(0.003), max_concurrency=2)
    assert wrong(shard) == []
    assert set(shard.messages.values()) == {""}
    assert sum(b"Connection: close" in head for head in server.heads) >= ITEMS - 4
    assert server.connections >= ITEMS - 4


@pytest.mark.parametrize("odd", [cut_lengths(), cut_lengths(glued=False), cut_lengths(every=7)])
def test_items__whose_answers_are_longer_than_their_length_fail(tmp_path: Path, odd: Odd) -> None:
    shard, _ = inferred(tmp_path, odd, items=20)
    assert wrong(shard, 20) == []
    failed = [message for message in shard.messages.values() if message]
    assert failed
    assert set(failed) == {
        "The model's answer has more bytes than its Content-Length or its chunks say, so it may be cut."
    }


def test_items__of_a_server_that_answers_well_keep_their_connections(tmp_path: Path) -> None:
    shard, server = inferred(tmp_path, twice_after(0.0, every=10_000), max_concurrency=4)
    assert set(shard.messages.values()) == {""}
    assert wrong(shard) == []
    assert server.connections <= 4
    assert len(server.bodies) == ITEMS
    assert not shard.tally.notes


def test_items__that_take_long_have_connections_of_their_own_and_no_doubt(tmp_path: Path) -> None:
    shard, _ = inferred(tmp_path, twice_after(0.003), seconds=0.6, items=24, max_concurrency=4)
    assert wrong(shard, 24) == []
    assert set(shard.messages.values()) == {""}


def test_rows__of_a_server_that_answers_twice_have_their_own_answers(tmp_path: Path) -> None:
    async def work() -> Shard:
        async with odd_server(twice_after(0.003, every=50)) as server:
            rows = b"".join(b"%d,%d\n" % (number, number) for number in range(300))
            run_ = make_run(server.url, str(tmp_path / "out"), request=ROWS)
            shard = Shard(run_, local_items(tmp_path / "in", {"1.csv": rows}))
            await shard.infer_async()
            return shard

    shard = run(work())
    assert shard.messages == {"1.csv": ""}
    lines = shard.result("1.csv").decode().splitlines()
    assert lines == [f'{{"data":{{"req_data":[{{"a":{number},"b":{number}}}]}}}}' for number in range(300)]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("seed", range(3))
def test_items__of_a_server_that_errs_at_random_have_their_own_answers_or_fail(
    tmp_path: Path, seed: int, share: float
) -> None:
    shard, _ = inferred(tmp_path, at_random(seed, share), items=400)
    assert wrong(shard, 400) == []
