"""A proxy in front of a real Prefect server that counts calls by method and path.

    with ApiProxy("http://127.0.0.1:4200/api") as proxy:
        ...  # a client whose PREFECT_API_URL is proxy.api
        proxy.calls[("POST", "/flows/")]
        with proxy.holding("PATCH", "/flow_runs/{id}/labels") as held:  # such calls reach the server after the block
            held.wait()

Bytes are passed on unchanged, also of web sockets. Ids in paths are counted as `{id}`. Calls that a busy server answers
with 503, and the client retries, do not count.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

_REQUEST = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (\S+) HTTP/1\.1\r\n")
_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BUSY = 503


class ApiProxy:
    """Listens on a free port of 127.0.0.1 inside the block, in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        self._upstream = urlsplit(upstream)
        self.calls: Counter[tuple[str, str]] = Counter()
        """Calls that were answered, by method and path below the API's address."""
        self.api = ""
        self._hold: tuple[str, str] | None = None
        self._held = threading.Event()
        self._let_go = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    @contextmanager
    def holding(self, method: str, path: str) -> Iterator[threading.Event]:
        """Hold the calls of this kind back inside the block; the event is set once there is one."""
        self._hold = (method, path)
        try:
            yield self._held
        finally:
            self._hold = None
            self._loop.call_soon_threadsafe(self._let_go.set)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._listen())

    async def _listen(self) -> None:
        self._over = asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.api = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}{self._upstream.path}"
        self._ready.set()
        await self._over.wait()
        server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_server = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        asked: list[tuple[str, str]] = []
        try:
            await asyncio.gather(
                self._pass(reader, to_server, lambda data: self._asked(data, asked)),
                self._pass(there, writer, lambda data: self._answered(data, asked)),
            )
        finally:
            to_server.close()
            writer.close()

    async def _pass(self, reader, writer, look) -> None:  # type: ignore[no-untyped-def]
        try:
            while data := await reader.read(1 << 16):
                if look(data):
                    self._held.set()
                    await self._let_go.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one side has closed its connection
        finally:
            writer.close()

    def _asked(self, data: bytes, asked: list[tuple[str, str]]) -> bool:
        # Clients of the API send the head of a request in one piece.
        if (found := _REQUEST.match(data)) is not None:
            path = _ID.sub("{id}", found[2].decode().partition("?")[0].removeprefix(self._upstream.path))
            asked.append((found[1].decode(), path))
            return asked[-1] == self._hold
        return False

    def _answered(self, data: bytes, asked: list[tuple[str, str]]) -> None:
        if asked and (found := _ANSWER.match(data)) is not None:
            call = asked.pop(0)
            if int(found[1]) != _BUSY:
                self.calls[call] += 1
