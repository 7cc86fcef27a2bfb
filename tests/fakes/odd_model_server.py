"""Model servers that send unsolicited bytes: responses twice, late, concatenated, or of another length.

The model echoes the body of a request, so that each response can be matched to its request.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Odd = Callable[[asyncio.StreamWriter, bytes, int], Awaitable[None]]
"""Answers one request, given the connection, the request's body, and its number, from 1."""


class OddServer:
    """The address, the number of connections, and the heads and bodies of requests received."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []


def answer(body: bytes, headers: bytes = b"") -> bytes:
    """A complete response."""
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


@asynccontextmanager
async def odd_server(odd: Odd, seconds: float = 0.0) -> AsyncIterator[OddServer]:
    """A server that takes ``seconds`` for each request and answers by ``odd``; it closes connections on request."""
    server = OddServer()
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET "):  # its health
                writer.write(answer(b"{}", b"Connection: close\r\n"))
                return
            server.connections += 1
            while True:
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                body = await reader.readexactly(size)
                server.heads.append(head)
                server.bodies.append(body)
                if seconds:
                    await asyncio.sleep(seconds)
                await odd(writer, body, len(server.bodies))
                await writer.drain()
                if b"connection: close" in head.lower():
                    return
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    def started(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(connected(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with await asyncio.start_server(started, "127.0.0.1", 0, backlog=256) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        try:
            yield server
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def twice_after(seconds: float, every: int = 1) -> Odd:
    """Every ``every``-th response is sent again after ``seconds``; only then is the next request read."""

    async def odd(writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
        writer.write(answer(body))
        if number % every == 0:
            await asyncio.sleep(seconds)
            writer.write(answer(body))

    return odd


def twice_by_a_timer(seconds: float, every: int = 1) -> Odd:
    """Like :func:`twice_after`, but the next request is read at once."""

    async def odd(writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
        writer.write(answer(body))
        if number % every == 0:
            asyncio.get_running_loop().call_later(
                seconds, lambda: None if writer.is_closing() else writer.write(answer(body))
            )

    return odd


def followed_by(excess: bytes, *, glued: bool = True, every: int = 1) -> Odd:
    """Every ``every``-th response is followed by these bytes, in the same write or in a slightly later one."""

    async def odd(writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
        if number % every:
            writer.write(answer(body))
        elif glued:
            writer.write(answer(body) + excess)
        else:
            writer.write(answer(body))
            await asyncio.sleep(0.003)
            writer.write(excess)

    return odd


def cut_lengths(*, glued: bool = True, every: int = 1) -> Odd:
    """Content-Length is one less than the number of bytes sent."""

    async def odd(writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
        if number % every:
            writer.write(answer(body))
            return
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(body) - 1)
        if glued:
            writer.write(head + body)
        else:
            writer.write(head + body[:-1])
            await asyncio.sleep(0.002)
            writer.write(body[-1:])

    return odd


def at_random(seed: int, share: float) -> Odd:
    """A share of the responses is sent twice, late, concatenated with another, or with a wrong length, at random."""
    draw = random.Random(seed)
    kinds = [
        lambda: twice_after(draw.uniform(0, 0.01)), lambda: twice_by_a_timer(draw.uniform(0, 0.02)),
        lambda: followed_by(answer(b"other")), lambda: followed_by(answer(b"other"), glued=False),
        lambda: followed_by(b"HTTP/1.1 100 Continue\r\n\r\n"), lambda: followed_by(b"\n", glued=False), cut_lengths,
        lambda: cut_lengths(glued=False),
    ]  # fmt: skip

    async def odd(writer: asyncio.StreamWriter, body: bytes, number: int) -> None:
        if draw.random() < share:
            await draw.choice(kinds)()(writer, body, 0)
        else:
            await asyncio.sleep(draw.choice([0, 0, draw.uniform(0, 0.01)]))
            writer.write(answer(body))

    return odd
