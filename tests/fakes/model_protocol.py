"""HTTP/1.1 for the fake model server, on asyncio.Protocol and httptools: fast enough to benchmark clients with."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import os
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools
from fakes.model_behaviour import Answer, Counts, answer_for, item_key

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


def head(status: int, length: int, headers: bytes = b"") -> bytes:
    """Status line and headers of a response."""
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n" % (
        status,
        REASONS.get(status, b"Odd"),
        length,
        headers,
    )


class Model:
    """The duration of responses: a number of seconds each, several at once, or seconds of CPU, one at a time.

    Late timers cost no throughput: while requests wait, the rate is exactly `parallelism / seconds`. A request is
    served to its end even if its client is gone.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.takes_time = bool(options.service_time or options.cpu_time)
        self._seconds: float = options.service_time / 1000
        self._cpu_seconds: float = options.cpu_time / 1000
        self._free_at = [0.0] * options.parallelism
        self._later: list[tuple[int, float, int]] = sorted(options.then)
        self._served = 0
        self._worker = ThreadPoolExecutor(1) if self._cpu_seconds else None

    async def serve(self, more_seconds: float) -> None:
        """Take the time of one request, plus its own `more_seconds`."""
        while self._later and self._served >= self._later[0][0]:
            self._change(*self._later.pop(0)[1:])
        self._served += 1
        if self._worker is not None:
            spin = asyncio.get_running_loop().run_in_executor(self._worker, _spin, self._cpu_seconds)
            await asyncio.shield(spin)
        seconds = self._seconds + more_seconds
        if not self._seconds:
            await asyncio.sleep(seconds)
            return
        done_at = max(time.monotonic(), self._free_at[0]) + seconds
        heapq.heapreplace(self._free_at, done_at)
        while (left := done_at - time.monotonic()) > 0:  # uvloop rounds to milliseconds, also down
            await asyncio.sleep(max(left, 0.001))

    def _change(self, milliseconds: float, parallelism: int) -> None:
        """Change the speed for later requests; those being served are not affected."""
        self._seconds = milliseconds / 1000
        now = time.monotonic()
        busy = [*(at for at in self._free_at if at > now), *[now] * parallelism]
        self._free_at = heapq.nlargest(parallelism, busy)
        heapq.heapify(self._free_at)


def _spin(seconds: float) -> None:
    """Use that much CPU time; the interpreter lock is released, so that the server still responds."""
    until = time.thread_time() + seconds
    block = bytes(1 << 16)
    while time.thread_time() < until:
        hashlib.sha256(block)


class Server:
    """The state shared by the connections: options, counts and the model."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.counts = Counts(Path(options.state) if options.state else None)
        self.count_items: bool = options.count_items
        self.never_healthy: bool = options.health == "never"
        self.healthy_file: str = options.health_when
        self.refusing_file: str = options.refuse_while
        self.credentials: bytes = b"Bearer " + options.token.encode() if options.token else b""
        self.model = Model(options)

    @property
    def healthy(self) -> bool:
        """Whether GET /health answers 200 now."""
        return not self.never_healthy and (not self.healthy_file or Path(self.healthy_file).exists())

    @property
    def refusal(self) -> Answer | None:
        """The response to every POST while they are refused."""
        if not self.refusing_file:
            return None
        try:
            status, *after = Path(self.refusing_file).read_text().split()
        except (FileNotFoundError, ValueError):  # it is missing, or being written
            return None
        return Answer(
            int(status), b'{"error": "refused"}', b"Retry-After: %b\r\n" % after[0].encode() if after else b""
        )


class Connection(asyncio.Protocol):
    """One keep-alive connection. Requests on it are answered in order; pipelined ones wait."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.counts = server.counts
        self.waiting: deque[tuple[bytes, str, bytes, bool]] = deque()
        self.task: asyncio.Task[None] | None = None
        self.target = b""
        self.expects = False
        self.allowed = True
        self.body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        self.parser = httptools.HttpRequestParser(self)
        self.counts.connections += 1

    def connection_lost(self, error: Exception | None) -> None:
        if self.task:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.write(head(400, 0, b"Connection: close\r\n"))
            self.transport.close()

    def on_message_begin(self) -> None:
        self.target, self.body, self.expects = b"", [], False
        self.allowed = not self.server.credentials

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.allowed = self.allowed or (name.lower() == b"authorization" and value == self.server.credentials)
        self.expects = self.expects or (name.lower() == b"expect" and value.lower() == b"100-continue")

    def on_headers_complete(self) -> None:
        if self.expects:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        path = self.target.partition(b"?")[0].decode("latin-1")
        if not self.allowed and path != "/stats":
            self.counts.requests[path] += 1
            self.reply(Answer(401, b'{"error": "who are you?"}'), self.parser.should_keep_alive())
            return
        request = (self.parser.get_method(), path, body, self.parser.should_keep_alive())
        if self.task and not self.task.done():
            self.waiting.append(request)
            return
        self.handle(*request)

    def handle(self, method: bytes, path: str, body: bytes, keep: bool) -> None:
        """Answer at once if possible: one task per request would halve the rate."""
        counts = self.counts
        counts.requests[path] += 1
        if method == b"DELETE" and path == "/stats":
            counts.forget()
        if method != b"POST":
            self.reply(self.lookup(path), keep)
            return
        if self.server.count_items:
            counts.items[item_key(body)] += 1
        counts.came()
        try:
            answer = self.server.refusal or answer_for(path, body, counts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            answer = Answer(400, b'{"error": "bad request: %s"}' % type(error).__name__.encode())
        if answer.action != "answer" or answer.delay_seconds or answer.gate or self.server.model.takes_time:
            self.task = asyncio.get_running_loop().create_task(self.serve(answer, keep))
        else:
            counts.went()
            self.reply(answer, keep)

    def lookup(self, path: str) -> Answer:
        """The answer to a GET."""
        if path == "/stats":
            return Answer(body=self.counts.as_json())
        if path == "/health":
            return Answer(200, b'{"health": "true"}') if self.server.healthy else Answer(503, b'{"health": "false"}')
        return Answer(404, b'{"error": "no such path"}')

    async def serve(self, answer: Answer, keep: bool) -> None:
        """Give a response that takes time or fails at the level of the connection."""
        try:
            await self.server.model.serve(answer.delay_seconds)
            while answer.gate and not answer.gate.exists():
                await asyncio.sleep(0.01)
            if answer.action == "die":
                os._exit(137)
            if answer.action == "hang":
                await asyncio.Event().wait()
            if answer.action == "close":
                self.transport.abort()
                return
        finally:
            self.counts.went()
        self.reply(answer, keep)
        self.task = None
        while self.waiting and self.task is None:
            self.handle(*self.waiting.popleft())

    def reply(self, answer: Answer, keep: bool) -> None:
        """Write one response."""
        self.counts.statuses[answer.status] += 1
        headers = answer.headers if keep else answer.headers + b"Connection: close\r\n"
        self.transport.write(head(answer.status, len(answer.body), headers) + answer.body)
        if not keep:
            self.transport.close()
