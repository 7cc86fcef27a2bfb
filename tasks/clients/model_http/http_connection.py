"""One HTTP/1.1 connection to a model server, directly on the event loop: one request at a time, kept alive in between.

A general client spends most of an item's time on features that a model server never needs (cookies, redirects,
proxies, a tracing hook per step): tests/benchmarks measures it. httptools (llhttp) does the parsing.

On a kept-alive connection, only their order matches responses to requests. A server that sends one response too many
shifts all later ones. Accepting a wrong one goes unnoticed at first: the error shows only when bytes arrive while no
request is open. So the responses of a connection belong to a :class:`Stretch`, which is settled once the connection has
been quiet for long enough, and doubted if it was not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import httptools

from tasks.clients.model_http.http_reply import (
    KEPT_HEADERS,
    ConnectionBroken,
    Reply,
    ReplyDoubted,
    ReplyLate,
    ReplyTooLarge,
    ReplyUnclear,
    Room,
    Stretch,
)

MAX_HEADER_BYTES = 64 << 10
"""Maximum bytes between two pieces of a body: headers, interim responses (1xx), trailers."""
BROKEN_OFF = "the answer broke off or is not HTTP"
CLOSED = "the connection was closed without an answer"
QUIET_SECONDS = 0.05
LONGEST = 1.5
"""A connection is quiet if nothing arrives for this many times the longest of its recent response times."""
FADES = 0.95
"""Decay of the longest response time with each further response: a server's first ones are slow."""
MOST_QUIET_SECONDS = 1.0
FIRST_QUIET_SECONDS = 0.03
"""After the first response, which cannot belong to an earlier request: only the rest of it may follow."""
COUNTED_BYTES = 64 << 10
"""Bytes of a response are counted in steps of this size as they arrive; smaller responses are not counted."""
TURN_SECONDS = 0.002
"""Grace after a time is up, to read what has arrived by then: a busy event loop runs its timers before it reads."""
_LINE_ENDS = b"\r\n"


class HttpConnection(asyncio.Protocol):
    """One connection, for one request at a time: :attr:`usable` is whether it may be given another.

    ``lost`` is called once when it can no longer be used. A response of more than ``max_bytes`` fails.
    """

    def __init__(self, max_bytes: int, lost: Callable[[HttpConnection], None]) -> None:
        self._max_bytes = max_bytes
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        # Accept hand-written responses of small servers: lines that end in LF alone, folded headers, a space before
        # the colon. Also show bytes after a response that ends the connection.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True, lenient_optional_cr_before_lf=True, lenient_keep_alive=True
        )
        self._waiting: asyncio.Future[Reply] | None = None
        self._last: Reply | None = None
        """The connection's last response, until it is certain that nothing follows."""
        self._only = self._large = False
        self._asked = 0
        self._started = self._deadline = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self._ending: asyncio.TimerHandle | None = None
        self._closed = False
        self._room: Room | None = None
        self._counted = 0
        self._paused_at: float | None = None
        self._piece = b""
        self._unbroken = 0
        self._longest = 0.0
        self.answered_at = 0.0
        """When its last response was complete, in seconds of the event loop's clock."""
        self.stretch = Stretch(settled=True)
        """Its responses since it was last quiet."""
        self._begin()

    def _begin(self) -> None:
        self._body: list[bytes] = []
        self._size = 0
        self._length = -1
        self._chunked = self._headers_complete = False
        self._begun = self._early = False
        self._encoding = ""
        self._kept: dict[bytes, str] = {}

    @property
    def usable(self) -> bool:
        """Whether it is open and no request is in flight on it."""
        return not self._closed and self._waiting is None

    @property
    def quiet_at(self) -> float:
        """When it counts as quiet if nothing arrives until then.

        A surplus response would arrive after the last one, at the latest once the server has processed the last
        request. Another request in flight makes no difference: the surplus would be taken for its response.
        """
        seconds = FIRST_QUIET_SECONDS
        if self._asked > 1:
            seconds = min(MOST_QUIET_SECONDS, max(QUIET_SECONDS, LONGEST * self._longest))
        quiet_at = self.answered_at + seconds
        if self._waiting is not None and self._begun and self._started < quiet_at:
            quiet_at = max(quiet_at, self._loop.time() + QUIET_SECONDS)  # once that response is here
        return quiet_at

    def settle(self) -> None:
        """Mark its responses as settled: it was quiet."""
        self.stretch.settled = True

    async def ask(
        self,
        parts: Sequence[bytes],
        deadline: float,
        *,
        only: bool = False,
        large: bool = True,
        room: Room | None = None,
    ) -> Reply:
        """Send a request, head and body in parts, and wait for the whole response until ``deadline`` (event loop time).

        With ``only``, it is the connection's only request, and its response counts once it is certain that nothing
        follows. A ``large`` request may not be sent at once. ``room`` may pause the reading of large responses; pauses
        do not count towards the deadline. Raises ConnectionBroken, ReplyDoubted, ReplyTooLarge, ReplyUnclear,
        ReplyLate; the connection is then closed, also if the wait is cancelled.
        """
        if self._closed or self._transport is None:
            raise ConnectionBroken(CLOSED)
        assert self._waiting is None, "one request at a time"
        waiting: asyncio.Future[Reply] = self._loop.create_future()
        self._waiting = waiting
        self._only = only
        self._large = large
        self._room = room
        self._asked += 1
        self._started = self._loop.time()
        self._deadline = deadline
        if self._alarm is None:  # one timer for many requests: most are answered long before
            self._alarm = self._loop.call_at(self._deadline, self._look_at_the_clock)
        self._begin()
        self._unbroken = 0
        self._transport.writelines(parts)
        try:
            return await waiting
        except asyncio.CancelledError:
            self.abort()
            raise
        finally:
            del waiting  # its exception would refer to this frame, and so keep the request in memory

    def abort(self) -> None:
        """Close it at once; a request in flight fails."""
        self._fail(ConnectionBroken(CLOSED))

    # --- callbacks of the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        """Some bytes of a response, or unsolicited ones."""
        if self._waiting is None:
            self._unasked(data)
            return
        if not self._begun and data[0] in _LINE_ENDS and self._ends_a_body(data):
            self._more()
            return
        self._piece = data
        self._unbroken += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._broken()
        else:
            if self._waiting is not None and self._unbroken > MAX_HEADER_BYTES:
                self._broken()

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is closed, by either side."""
        to_the_end = self._headers_complete and self._length < 0 and not self._chunked
        if self._last is None and error is None and self._waiting is not None and to_the_end:
            self.answered_at = self._loop.time()
            self._last = self._reply(self._parser.get_status_code())
            self._begun = False
        if self._last is not None:
            self._end()
        self._fail(ConnectionBroken(BROKEN_OFF if self._begun and error is None else CLOSED))

    def _look_at_the_clock(self) -> None:
        self._alarm = None
        if self._waiting is None or self._last is not None:
            return
        now = self._loop.time()
        deadline = self._deadline + (0.0 if self._paused_at is None else now - self._paused_at)
        if deadline > now:
            self._alarm = self._loop.call_at(deadline, self._look_at_the_clock)
        else:
            self._fail(ReplyLate())

    # --- callbacks of the parser

    def on_message_begin(self) -> None:
        """A response begins, or bytes that follow one."""
        if self._waiting is None:
            self._unasked(b"")
        self._begun = True
        if self._large and self._transport is not None:
            self._early = bool(self._transport.get_write_buffer_size())

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; the parser itself handles most of them."""
        if self._headers_complete or self._last is not None:
            return
        lower = name.strip().lower()
        if lower == b"content-length":
            self._length = int(value)
        elif lower == b"transfer-encoding":
            if self._chunked or value.strip().lower() != b"chunked":
                raise ValueError("only chunks are understood")
            self._chunked = True
        elif lower == b"content-encoding":
            self._encoding += (", " if self._encoding else "") + value.decode("latin-1")
        elif lower in KEPT_HEADERS:
            self._kept[lower] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The body begins, if the response has one."""
        if self._last is not None:  # another response follows: the first is complete
            self._begun = False
            self._end()
            return
        self._headers_complete = True
        status = self._parser.get_status_code()
        if self._length > self._max_bytes and status >= 200 and status not in (204, 304):
            self._fail(ReplyTooLarge(status))

    def on_body(self, data: bytes) -> None:
        """Some bytes of the body."""
        if self._waiting is None or self._last is not None:
            return
        self._body.append(data)
        self._size += len(data)
        self._unbroken = 0
        if self._size > self._max_bytes:
            self._fail(ReplyTooLarge(self._parser.get_status_code()))
        elif self._size - self._counted >= COUNTED_BYTES:
            self._count()

    def on_message_complete(self) -> None:
        """The response is complete; an interim one (1xx) is followed by the final one."""
        if self._waiting is None or self._last is not None:
            return
        status = self._parser.get_status_code()
        if status < 200:
            if status < 100:
                raise ValueError("no status of HTTP")
            self._begin()
            return
        assert self._transport is not None
        # If the response came before the whole request was sent, the connection cannot be reused.
        unsent = self._large and bool(self._transport.get_write_buffer_size())
        keep = self._parser.should_keep_alive()
        if not keep and self._parser.get_http_version() not in ("1.0", "1.1"):
            raise ValueError("no version of HTTP that was asked for")
        body = self._body
        if (body and self._length >= 0 and not self._piece.endswith(body[-1]) and self._line_ends_follow()) or (
            (unsent or self._early) and status < 300 and not self.stretch.settled
        ):
            self._more()
        elif keep and not self._only and not unsent:
            waiting, self._waiting = self._waiting, None
            self.answered_at = now = self._loop.time()
            longest, seconds = FADES * self._longest, now - self._started
            self._longest = longest if longest > seconds else seconds
            if self.stretch.settled:
                self.stretch = Stretch()
            reply = self._reply(status)
            if not waiting.done():
                waiting.set_result(reply)
        else:
            self.answered_at = self._loop.time()
            self._last = self._reply(status)
            self._begun = False
            self._ending = self._loop.call_later(QUIET_SECONDS, self._loop.call_later, TURN_SECONDS, self._end)

    # The parser skips line ends between responses, but they may be the end of a body whose length is wrong. A single
    # CR LF is accepted: some servers send it to be on the safe side.

    def _line_ends_follow(self) -> bool:
        """Whether only line ends, and not just one CR LF, follow the body in this piece, which continues after it."""
        rest = self._piece[self._piece.rfind(self._body[-1]) + len(self._body[-1]) :]
        return rest != _LINE_ENDS and not rest.strip(_LINE_ENDS)

    def _ends_a_body(self, data: bytes) -> bool:
        """Whether the line ends at the start of this piece may belong to the previous body."""
        if self._last is None and self.stretch.settled:
            return False
        return data[: len(data) - len(data.lstrip(_LINE_ENDS))] != _LINE_ENDS

    def _reply(self, status: int) -> Reply:
        body, self._body = self._body, []
        data = body[0] if len(body) == 1 else b"".join(body)
        if self._counted or self._paused_at is not None:
            self._release(whole=200 <= status < 300)
        return Reply(status, data, self._encoding, self.stretch, self._kept)

    def _count(self) -> None:
        if self._room is None:
            return
        amount, self._counted = self._size - self._counted, self._size
        if not self._room.arrive(amount, self._resume) and self._paused_at is None and self._transport is not None:
            self._paused_at = self._loop.time()
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused_at is not None and not self._closed:
            assert self._transport is not None
            self._deadline += self._loop.time() - self._paused_at
            self._paused_at = None
            self._transport.resume_reading()

    def _release(self, *, whole: bool) -> None:
        room, counted = self._room, self._counted
        self._room, self._counted = None, 0
        if self._paused_at is not None and not self._closed and self._transport is not None:
            self._transport.resume_reading()
        self._paused_at = None
        if room is not None and counted:
            room.ended(counted, self._resume, whole=whole)

    def _unasked(self, data: bytes) -> None:
        """Handle bytes that arrive while no request is open."""
        if data == _LINE_ENDS:
            return
        if not data.startswith((b"HTTP/1.1 408 ", b"HTTP/1.0 408 ")):  # a 408 only gives the reason for closing
            self.stretch.doubted = self._asked > 0
        self._fail(ConnectionBroken(CLOSED))

    def _broken(self) -> None:
        """Handle bytes that are not a valid response."""
        if self._waiting is None:  # a complete response came before them, in the same piece
            self._unasked(b"")
        elif self._last is not None or not self.stretch.settled:
            self._more()
        else:
            self._fail(ConnectionBroken(BROKEN_OFF))

    def _more(self) -> None:
        """Handle surplus bytes, after the last response or an earlier one."""
        if self._only and self._asked == 1:
            self._fail(ReplyUnclear(self._parser.get_status_code() if self._last is None else self._last.status))
        else:
            self.stretch.doubted = True
            self._fail(ReplyDoubted())

    def _end(self) -> None:
        """Deliver the last response, which is complete if nothing has followed by now."""
        reply, self._last = self._last, None
        if reply is None:
            return
        if self._begun:
            self._last = reply
            self._more()
            return
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(reply)
        self._fail(ConnectionBroken(CLOSED))

    def _fail(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_exception(error)
        if self._closed:
            return
        self._closed = True
        self._last = None
        self._body = []
        self.stretch.settled = True  # unless it is doubted: nothing more can follow
        self._release(whole=False)
        for timer in (self._alarm, self._ending):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        self._lost(self)
