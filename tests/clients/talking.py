"""Servers that say what a test tells them to, byte by byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from tasks.clients.model_http.model_server import Answer, RequestFailed
from tasks.domain.request import Body

Talk = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


OK = b"HTTP/1.1 200 OK\r\n"


BODY = Body("a/b", (b"what", b" is ", b"sent"))


class Server:
    """What a server was sent; ``connections`` counts those who came."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self.url = ""


@asynccontextmanager
async def serving(
    talk: Talk, *, context: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[Server]:
    """A server that reads each request whole and then calls ``talk`` with its body."""
    server = Server()
    open_ones: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        open_ones.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                server.heads.append(head)
                size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await talk(await reader.readexactly(size), writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.transport.abort()
            open_ones.discard(writer)

    async with await asyncio.start_server(connected, host, 0, ssl=context) as listening:
        port = listening.sockets[0].getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        server.url = f"{'https' if context else 'http'}://{name}:{port}"
        try:
            yield server
        finally:
            for writer in open_ones:
                writer.transport.abort()


def saying(*pieces: bytes) -> Talk:
    """A server that sends these pieces, one after the other."""

    async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)

    return talk


def kind(found: Answer | RequestFailed) -> tuple[str, str]:
    assert isinstance(found, RequestFailed)
    return found.failure.kind, found.cause
