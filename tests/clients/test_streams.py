"""Files and objects that are read and written piece by piece."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from clients.support import run
from fakes.odd_s3_server import OddS3Server
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import Address, parse_address
from tasks.domain.settings import Settings


class Pieces(Storage):
    """A storage that holds one file, read in these pieces."""

    def __init__(self, pieces: list[bytes]) -> None:
        super().__init__(Settings())
        self._pieces = pieces

    async def stream(self, address: Address) -> AsyncGenerator[bytes]:
        for piece in self._pieces:
            yield piece


@given(st.lists(st.binary(max_size=6).map(lambda piece: piece.replace(b"\1", b"\n").replace(b"\0", b"\n"))))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_lines__are_the_same_however_the_file_is_cut_into_pieces(pieces: list[bytes]) -> None:
    seen: list[bytes] = []

    async def work() -> list[bytes]:
        return [line async for line in Pieces(pieces).lines(parse_address("/some/file"), seen.append)]

    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert asyncio.run(work()) == expected
    assert b"".join(seen) == whole


def test_lines__of_an_endless_line_keep_its_beginning_and_all_that_follows() -> None:
    class Endless(Storage):
        async def stream(self, address: Address) -> AsyncGenerator[bytes]:
            yield b"before\n"
            for _ in range(64):
                yield b"x" * (1 << 20)
            yield b"x\nbehind\nlast"

    async def work() -> list[bytes]:
        return [line async for line in Endless(Settings()).lines(parse_address("/some/file"), longest=1000)]

    tracemalloc.start()
    try:
        lines = asyncio.run(work())
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert lines == [b"before", b"x" * 1001, b"behind", b"last"]
    assert most < 8 << 20


@pytest.mark.parametrize("longest", [1, 2, 3, 10])
def test_lines__within_the_bound_are_whole_and_longer_ones_are_seen_to_be(longest: int) -> None:
    for size in range(8):
        whole = b"a" * longest + b"\n" + b"b" * size + b"\n" + b"c"

        async def work(step: int, whole: bytes = whole) -> list[bytes]:
            pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
            return [line async for line in Pieces(pieces).lines(parse_address("/some/file"), longest=longest)]

        for step in range(1, len(whole) + 1):
            first, second, last = asyncio.run(work(step))
            assert (first, last) == (b"a" * longest, b"c")
            assert second == b"b" * size if size <= longest else len(second) > longest


def test_stream__writes_an_object_in_parts_as_it_is_given() -> None:
    with OddS3Server({"data": {}}) as server:
        names = {"access_key_id": "a", "secret_access_key": "b", "region": "us-east-1"}
        keys = Credentials.model_validate({"endpoint_url": server.endpoint, **names})
        data = bytes(range(256)) * (20 << 12)  # 20 MiB

        async def work() -> Any:
            storage = Storage(Settings(), {"s3": keys})
            output = OutputFolder(storage, parse_address("s3://data/out"), ".scratch")
            async with output.stream("large") as writer:
                for start in range(0, len(data), 1 << 20):
                    await writer.write(data[start : start + (1 << 20)])
            await storage.close()

        run(work())
        assert server.buckets["data"]["out/large"] == data
        assert len([line for line in server.lines if line.startswith("PUT ") and "partNumber" in line]) == 3
        assert not server.uploads
