"""HTTP/1.1 for the fake model server, on asyncio.Protocol and httptools: fast enough to benchmark clients with."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
from collections import deque
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httptools
from fakes.model_behaviour import Answer, Counts, answer_for, item_key

REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


def head(status: int, length: int, headers: bytes = b"") -> bytes:
    """Status line and headers of an answer."""
    return b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n" % (
        status,
        REASONS.get(status, b"Odd"),
        length,
        headers,
    )


class Slots:
    """So many requests at once, the others in the order in which they came; the number may change meanwhile."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0
        self.waiting: deque[asyncio.Future[None]] = deque()

    async def __aenter__(self) -> None:
        if self.taken < self.size and not self.waiting:
            self.taken += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.taken -= 1
                self.hand_out()
            raise

    async def __aexit__(self, *error: object) -> None:
        self.taken -= 1
        self.hand_out()

    def hand_out(self) -> None:
        """Give free slots to those that wait."""
        while self.waiting and self.taken < self.size:
            turn = self.waiting.popleft()
            if not turn.done():
                self.taken += 1
                turn.set_result(None)

    def resize(self, size: int) -> None:
        """So many slots from now on; what is at work goes on."""
        self.size = size
        self.hand_out()


class Server:
    """What the connections share: options, counts and the slots of the model."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.counts = Counts(Path(options.state) if options.state else None)
        self.count_items: bool = options.count_items
        self.never_healthy: bool = options.health == "never"
        self.healthy_file: str = options.health_when
        self.service_seconds: float = options.service_time / 1000
        self.slots = Slots(options.parallelism) if self.service_seconds else None
        self.later: list[tuple[int, float, int]] = sorted(options.then)

    def served(self) -> None:
        """Count a request that had its slot; the speed changes after as many as `--then` says."""
        self.counts.served += 1
        while self.slots and self.later and self.counts.served >= self.later[0][0]:
            _, milliseconds, parallelism = self.later.pop(0)
            self.service_seconds = milliseconds / 1000
            self.slots.resize(parallelism)

    @property
    def healthy(self) -> bool:
        """Whether GET /health answers 200 by now."""
        return not self.never_healthy and (not self.healthy_file or Path(self.healthy_file).exists())


class Connection(asyncio.Protocol):
    """One keep-alive connection. Requests on it are answered in order, pipelined ones wait."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.counts = server.counts
        self.waiting: deque[tuple[bytes, str, bytes, bool]] = deque()
        self.task: asyncio.Task[None] | None = None
        self.target = b""
        self.expects = False
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

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.expects = self.expects or (name.lower() == b"expect" and value.lower() == b"100-continue")

    def on_headers_complete(self) -> None:
        if self.expects:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self.body.append(data)

    def on_message_complete(self) -> None:
        body = self.body[0] if len(self.body) == 1 else b"".join(self.body)
        path = self.target.partition(b"?")[0].decode("latin-1")
        request = (self.parser.get_method(), path, body, self.parser.should_keep_alive())
        if self.task and not self.task.done():
            self.waiting.append(request)
            return
        self.handle(*request)

    def handle(self, method: bytes, path: str, body: bytes, keep: bool) -> None:
        """Answer at once where possible: a task a request would cost half the rate."""
        counts = self.counts
        counts.requests[path] += 1
        if method != b"POST":
            self.reply(self.lookup(path), keep)
            return
        if self.server.count_items:
            counts.items[item_key(body)] += 1
        counts.in_flight += 1
        counts.max_in_flight = max(counts.max_in_flight, counts.in_flight)
        try:
            answer = answer_for(path, body, counts)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            answer = Answer(400, b'{"error": "bad request: %s"}' % type(error).__name__.encode())
        if answer.action != "answer" or answer.delay_seconds or answer.gate or self.server.slots:
            self.task = asyncio.get_running_loop().create_task(self.serve(answer, keep))
        else:
            counts.in_flight -= 1
            self.reply(answer, keep)

    def lookup(self, path: str) -> Answer:
        """The answer to a GET."""
        if path == "/stats":
            return Answer(body=self.counts.as_json())
        if path == "/health":
            return Answer(200, b'{"health": "true"}') if self.server.healthy else Answer(503, b'{"health": "false"}')
        return Answer(404, b'{"error": "no such path"}')

    async def serve(self, answer: Answer, keep: bool) -> None:
        """An answer that takes time or fails on the connection's level."""
        try:
            async with self.server.slots or contextlib.nullcontext():
                await asyncio.sleep(self.server.service_seconds + answer.delay_seconds)
                self.server.served()
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
            self.counts.in_flight -= 1
        self.reply(answer, keep)
        self.task = None
        while self.waiting and self.task is None:
            self.handle(*self.waiting.popleft())

    def reply(self, answer: Answer, keep: bool) -> None:
        """Write one answer."""
        self.counts.statuses[answer.status] += 1
        headers = answer.headers if keep else answer.headers + b"Connection: close\r\n"
        self.transport.write(head(answer.status, len(answer.body), headers) + answer.body)
        if not keep:
            self.transport.close()
