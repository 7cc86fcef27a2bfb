"""Large answers: held against the budget while they arrive, so that many at once do not take all memory."""

from __future__ import annotations

import asyncio
import gzip
from collections import Counter
from pathlib import Path

import pytest
from clients.support import run
from engine.runs import Shard, local_items, make_run
from fakes.odd_model_server import Odd, answer, odd_server

from tasks.engine.budget import Budget

MIB = 1 << 20
ITEMS = 24
LARGE = bytes(range(256)) * (4 * MIB // 256)
PIECES = 512 << 10
"""What a connection may have read before it stops."""


async def plain(writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
    writer.write(answer(LARGE))


async def packed(writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
    writer.write(answer(gzip.compress(LARGE, 1), b"Content-Encoding: gzip\r\n"))


class BreakingOff:
    """Breaks off its first two answers to each item."""

    def __init__(self) -> None:
        self.requests: Counter[bytes] = Counter()

    async def __call__(self, writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
        self.requests[body] += 1
        if self.requests[body] <= 2:
            writer.write(answer(LARGE)[: 3 * MIB])
            await writer.drain()
            writer.close()
        else:
            writer.write(answer(LARGE))


@pytest.mark.parametrize("odd", [plain, packed, BreakingOff()], ids=["plain", "packed", "breaking off"])
def test_answers__that_are_large_are_read_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: Odd
) -> None:
    least = [0]
    arrive = Budget.arrive

    def watched(budget: Budget, *arguments: object) -> bool:
        found = arrive(budget, *arguments)  # type: ignore[arg-type]
        least[0] = min(least[0], budget._free)
        return found

    monkeypatch.setattr(Budget, "arrive", watched)
    items = local_items(tmp_path / "in", {f"{number:02d}.bin": b"%d" % number for number in range(ITEMS)})

    async def work() -> None:
        async with odd_server(odd) as server:
            shard = Shard(make_run(server.url, str(tmp_path / "out")), items, bytes_in_flight=8 * MIB)
            await shard.infer_async()
            assert {outcome.message for outcome in shard.outcomes} == {""}
            assert all(shard.result(f"{number:02d}.bin") == LARGE for number in range(ITEMS))

    run(work())
    assert least[0] >= -len(LARGE) - ITEMS * PIECES
