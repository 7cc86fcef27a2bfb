"""A proxy in front of a real S3 server that disturbs requests by rules; each rule counts what it has done.

    with S3Proxy(s3.endpoint) as proxy:
        broken = proxy.add(Rule("status", every=3))
        ...
        assert broken.done

Each request has its own connection to the server, so that a rule can cut just that one. Signatures stay valid: the head
of a request is passed on unchanged, except for `Connection`, which no client signs.
"""

from __future__ import annotations

import asyncio
import re
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self
from urllib.parse import urlsplit

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>as asked</Message></Error>"


@dataclass
class Rule:
    """An action, and the requests it applies to.

    `status`: 503 instead of the server's response. `cut read`: half of the response's body, then the connection ends.
    `cut write`: half of the request's body is read, then the connection ends. `refuse`: the connection ends unanswered.
    `hold`: the request waits until :meth:`release`, or until its client is gone.
    """

    action: Literal["status", "cut read", "cut write", "refuse", "hold"]
    method: str = ""
    """Only requests of this method; default: all."""
    target: str = ""
    """Only requests whose path and query contain a match of this pattern."""
    every: int = 1
    """Every n-th of these requests, beginning with the first."""
    times: int = 1 << 30
    """At most this many times."""
    seen: int = 0
    done: int = 0
    _released: threading.Event = field(default_factory=threading.Event)

    def applies(self, method: str, target: str) -> bool:
        """Whether this request is to be disturbed; also count it."""
        if (self.method and method != self.method) or not re.search(self.target, target):
            return False
        self.seen += 1
        if (self.seen - 1) % self.every or self.done >= self.times or self._released.is_set():
            return False
        self.done += 1
        return True

    def release(self) -> None:
        """Disable the rule and let the requests that it holds continue."""
        self._released.set()

    @property
    def released(self) -> bool:
        """Whether :meth:`release` was called."""
        return self._released.is_set()


class S3Proxy:
    """The proxy, in a thread of its own, as a context manager; `endpoint` is its address."""

    def __init__(self, upstream: str) -> None:
        where = urlsplit(upstream)
        self._upstream = (where.hostname or "127.0.0.1", where.port or 80)
        self._rules: list[Rule] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._ready = threading.Event()
        self._over = asyncio.Event()
        self.endpoint = ""

    def add(self, rule: Rule) -> Rule:
        """Add a rule; of those that apply to a request, the first is used."""
        self._rules = [*self._rules, rule]
        return rule

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()
        self._loop.close()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        connections: set[asyncio.Task[None]] = set()

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            try:
                while await self._pass(reader, writer):
                    pass
            except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                connections.discard(task)
                writer.transport.abort()

        server = await asyncio.start_server(connected, "127.0.0.1", 0, limit=1 << 20)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._ready.set()
        await self._over.wait()
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Handle one request; whether another one may follow on this connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        size = int(length[1]) if length else 0
        rule = next((one for one in self._rules if one.applies(method, target)), None)
        action = rule.action if rule else ""
        if action == "refuse":
            return False
        if action == "cut write":
            await reader.readexactly(size // 2)
            return False
        body = await reader.readexactly(size)
        if action == "status":
            writer.write(b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n%s" % (len(SLOW_DOWN), SLOW_DOWN))
            await writer.drain()
            return True
        if rule is not None and action == "hold":
            while not rule.released:
                if reader.at_eof():
                    return False
                await asyncio.sleep(0.02)
        await self._relay(head, body, writer, cut=action == "cut read")
        return False

    async def _relay(self, head: bytes, body: bytes, writer: asyncio.StreamWriter, *, cut: bool) -> None:
        """Ask the server and pass on its response, or with `cut` only half of its body."""
        head = re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
        own_reader, own_writer = await asyncio.open_connection(*self._upstream)
        try:
            own_writer.write(head + body)
            await own_writer.drain()
            answer = await own_reader.read()
        finally:
            own_writer.close()
        answer_head, _, answer_body = answer.partition(b"\r\n\r\n")
        if cut:
            answer_body = answer_body[: len(answer_body) // 2]
        writer.write(answer_head + b"\r\n\r\n" + answer_body)
        await writer.drain()
        if not cut:
            writer.write_eof()
            await writer.wait_closed()
