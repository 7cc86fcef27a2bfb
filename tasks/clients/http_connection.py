"""One HTTP/1.1 connection to a model server, on the bare event loop: one request at a time, kept open in between.

A general client spends most of an item's time on what a model server never needs (cookies, redirects, proxies,
compression, a tracing hook a step): tests/benchmarks measures it. Parsing is httptools' (llhttp).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

import httptools

MAX_HEADER_BYTES = 64 << 10
BROKEN_OFF = "the answer broke off or is not HTTP"
CLOSED = "the connection was closed without an answer"


class Reply(NamedTuple):
    """What came back: the status, the body, and the value of Retry-After if there was one."""

    status: int
    data: bytes
    retry_after: str | None


class ConnectionBroken(Exception):
    """There is no whole answer, and the connection is of no use any more."""


class ReplyTooLarge(Exception):
    """The answer has more bytes than are taken."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class ReplyLate(Exception):
    """There was no answer in time."""


class HttpConnection(asyncio.Protocol):
    """One connection. Not for use by two at once: :attr:`usable` tells whether it may be given another request.

    ``lost`` is called once when it is of no use any more. Answers of more than ``max_bytes`` are given up.
    """

    def __init__(self, max_bytes: int, lost: Callable[[HttpConnection], None]) -> None:
        self._max_bytes = max_bytes
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        # What small servers write by hand: lines that end in LF alone, folded headers, a blank before the colon.
        self._parser.set_dangerous_leniencies(lenient_headers=True, lenient_optional_cr_before_lf=True)
        self._waiting: asyncio.Future[Reply] | None = None
        self._deadline = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._closed = False
        self.idle_since = 0.0
        """When it was last given back, in seconds of the event loop's clock."""
        self._begin()

    def _begin(self) -> None:
        self._body: list[bytes] = []
        self._size = 0
        self._header_bytes = 0
        self._to_the_end = True
        self._headers_complete = False
        self._begun = False
        self._retry_after: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it is open and nobody waits for an answer on it."""
        return not self._closed and self._waiting is None

    async def ask(self, parts: Sequence[bytes], timeout_seconds: float) -> Reply:
        """Send a request, head and body in parts, and wait for the whole answer.

        Raises ConnectionBroken, ReplyTooLarge, ReplyLate; the connection is closed then, and if the wait is cancelled.
        """
        if self._closed or self._transport is None:
            raise ConnectionBroken(CLOSED)
        assert self._waiting is None, "one request at a time"
        waiting: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting = waiting
        self._deadline = self._loop.time() + timeout_seconds
        if self._alarm is None:  # one for many requests: most are answered long before
            self._alarm = self._loop.call_at(self._deadline, self._look_at_the_clock)
        self._begin()
        self._transport.writelines(parts)
        try:
            return await waiting
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            del waiting  # an exception in it would lead to this frame, and so to the request

    def abort(self) -> None:
        """Close it at once; who waits for an answer gets none."""
        self._fail(ConnectionBroken(CLOSED))

    # --- what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Some bytes of an answer, or of what nobody asked for."""
        if self._waiting is None:
            self._fail(ConnectionBroken(CLOSED))
            return
        if not self._headers_complete:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._fail(ConnectionBroken(BROKEN_OFF))
        else:
            if not self._headers_complete and self._header_bytes > MAX_HEADER_BYTES:
                self._fail(ConnectionBroken(BROKEN_OFF))

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed, by whomever."""
        if error is None and self._waiting is not None and self._headers_complete and self._to_the_end:
            self._complete(keep=False)  # such a body ends with the connection
        self._fail(ConnectionBroken(BROKEN_OFF if self._begun and error is None else CLOSED))

    def _look_at_the_clock(self) -> None:
        self._alarm = None
        if self._waiting is None:
            return
        if self._deadline > self._loop.time():
            self._alarm = self._loop.call_at(self._deadline, self._look_at_the_clock)
        else:
            self._fail(ReplyLate())

    # --- what the parser calls

    def on_message_begin(self) -> None:
        """An answer begins; one that nobody has asked for is none of the next request."""
        if self._waiting is None:
            self._fail(ConnectionBroken(CLOSED))
        self._begun = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; the parser sees to what most of them mean."""
        lower = name.strip().lower()
        if lower == b"content-length":
            self._to_the_end = False
            self._size = int(value)
        elif lower == b"transfer-encoding":
            self._to_the_end = False
        elif lower == b"retry-after":
            self._retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body begins, if there is one."""
        self._headers_complete = True
        if self._size > self._max_bytes:
            self._fail(ReplyTooLarge(self._parser.get_status_code()))
        self._size = 0

    def on_body(self, data: bytes) -> None:
        """Some bytes of the body."""
        self._body.append(data)
        self._size += len(data)
        if self._size > self._max_bytes:
            self._fail(ReplyTooLarge(self._parser.get_status_code()))

    def on_message_complete(self) -> None:
        """The answer is whole; one that only asks for patience (1xx) is followed by the real one."""
        if self._parser.get_status_code() < 200:
            self._begin()
            return
        self._complete(keep=self._parser.should_keep_alive())

    def _complete(self, *, keep: bool) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is None:  # it was given up meanwhile, or is one too many
            self._fail(ConnectionBroken(CLOSED))
            return
        body = self._body
        data = body[0] if len(body) == 1 else b"".join(body)
        self._body = []
        if not waiting.done():
            waiting.set_result(Reply(self._parser.get_status_code(), data, self._retry_after))
        assert self._transport is not None
        if not keep or self._transport.get_write_buffer_size():  # answered before all of the request was taken
            self._fail(ConnectionBroken(CLOSED))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        if self._closed:
            return
        self._closed = True
        self._body = []
        if self._alarm is not None:
            self._alarm.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._lost(self)
