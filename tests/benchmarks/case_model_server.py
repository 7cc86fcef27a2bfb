"""Whether the model server that all contestants use is fast enough not to be what is measured.

A client that only writes prepared bytes, and counts answers, finds the server's own rate; aiohttp, which the floors
use, stays well below it.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
import uvloop
from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row

IN_FLIGHT = 64
REQUESTS = {"10 KB": 30_000, "1 row": 30_000, "64 rows": 5_000}
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")


def body_and_path(kind: str) -> tuple[bytes, str]:
    """What is posted, and where to."""
    if kind == "10 KB":
        return random.Random(0).randbytes(10_240), "/"
    rows = [dict.fromkeys(FIELDS, 1.5)] * int(kind.split()[0])
    return json.dumps({"data": {"req_data": rows}}).encode(), "/iris"


class BareClient(asyncio.Protocol):
    """One connection: writes the same bytes again as soon as an answer of the expected length is there."""

    def __init__(self, request: bytes, answer_bytes: int, left: list[int], over: asyncio.Event) -> None:
        self._request = request
        self._answer_bytes = answer_bytes
        self._left = left  # requests to be sent, answers to come
        self._over = over
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        if self._left[0]:
            self._left[0] -= 1
            self._missing = self._answer_bytes
            self._transport.write(self._request)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing:
            self._left[1] -= 1
            if not self._left[1]:
                self._over.set()
            self._send()


def bare(kind: str, count: str, url: str) -> Figures:
    """The server's own rate."""
    body, path = body_and_path(kind)
    where = urlsplit(url)
    request = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)

    async def post_all() -> float:
        loop = asyncio.get_running_loop()
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(head.decode())
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.close()
        left, over = [int(count), int(count)], asyncio.Event()
        start = time.perf_counter()
        for _ in range(IN_FLIGHT):
            await loop.create_connection(
                lambda: BareClient(request, len(head) + length, left, over), where.hostname, where.port
            )
        await over.wait()
        return time.perf_counter() - start

    seconds = uvloop.run(post_all())
    return {"seconds": seconds, "items": int(count), "rate": int(count) / seconds}


def with_aiohttp(kind: str, count: str, url: str) -> Figures:
    """The rate of the client that the floors use."""
    body, path = body_and_path(kind)

    async def post_all() -> None:
        supply = iter(range(int(count)))

        async def work(session: aiohttp.ClientSession) -> None:
            for _ in supply:
                async with session.post(url + path, data=body) as response:
                    await response.read()
                    response.raise_for_status()

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
            await asyncio.gather(*(work(session) for _ in range(IN_FLIGHT)))

    start = time.perf_counter()
    uvloop.run(post_all())
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "items": int(count), "rate": int(count) / seconds}


def run(room: Room) -> list[Row]:
    """The server's rate by that of aiohttp, for each kind of request."""
    from table import compared

    rows = []
    for kind, full in REQUESTS.items():
        count = room.items(full, least=1_000)

        def contestant(floor: str, kind: str = kind, count: int = count) -> Figures:
            return room.client(__file__, floor, kind, str(count), room.model_url)

        who = {"prepared bytes": lambda _: contestant("bare"), "aiohttp": lambda _: contestant("aiohttp")}
        played = room.rounds(f"model server, {kind}", who, {"items": count})
        what = f"the model server's own rate by aiohttp's, requests of {kind}"
        rows.append(compared(what, played["prepared bytes"], played["aiohttp"]))
    return rows


FLOORS = {"bare": bare, "aiohttp": with_aiohttp}
CASES = [Case("model-server", "whether the model server is fast enough", run)]

if __name__ == "__main__":
    program(CASES, FLOORS)
