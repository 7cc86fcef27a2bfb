"""HTTP/1.1 on asyncio's bare event loop: what model servers need, on every Python from 3.6 on, without a library."""

import asyncio
import re
import socket
from http import HTTPStatus
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Set, Tuple, cast
from urllib.parse import unquote, urlsplit

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together."""
MAX_AHEAD_BYTES = 256 * 1024
"""What a client may send before the answer to its last request."""
KEEP_ALIVE_SECONDS = 120
"""Longer than clients keep an idle connection, so that the server never closes one with a request in flight."""
SWEEP_SECONDS = 10
"""Interval between two searches for idle connections."""
REASONS = {status.value: status.phrase for status in HTTPStatus}
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SIZE = re.compile(rb"[0-9A-Fa-f]{1,15}")

Headers = Tuple[Tuple[str, str], ...]


class Request(NamedTuple):
    """One whole HTTP request: ``path`` decoded, the names of ``headers`` in lower case."""

    method: str
    path: str
    query: str
    headers: Dict[bytes, bytes]
    body: bytes


class Answer(NamedTuple):
    """One HTTP response. ``headers`` are those in addition to content type and length."""

    status: int
    content_type: str
    body: bytes
    headers: Headers = ()


Reply = Callable[[Answer], None]
Cancel = Callable[[], Any]
Handler = Callable[[Request, Reply], Optional[Cancel]]
"""Answers a request by calling ``reply`` in the event loop, now or later; returns what ends work that nobody awaits."""
Refuse = Callable[[int, str], Answer]


class BadRequest(Exception):
    """What a client has sent is not a request; ``status`` answers it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Head(NamedTuple):
    method: str
    path: str
    query: str
    headers: Dict[bytes, bytes]
    length: int
    chunked: bool
    keeps: bool


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other."""

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._transport = cast(asyncio.Transport, None)
        self._buffer = bytearray()
        self._head: Optional[_Head] = None
        self._pieces: List[bytes] = []
        self._cancel: Optional[Cancel] = None
        self._paused = False
        self.answering = False
        self.idle_since: Optional[float] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        self._transport = cast(asyncio.Transport, transport)
        plug = transport.get_extra_info("socket")
        plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # Python 3.6 does not set it by itself
        self._server.connections.add(self)
        self.idle_since = self._server.loop.time()

    def connection_lost(self, error: Optional[Exception]) -> None:
        """Called by the loop."""
        self._server.connections.discard(self)
        if self.answering:
            self.answering = False
            if self._cancel is not None:
                self._cancel()
        self._server.note_end()

    def data_received(self, data: bytes) -> None:
        """Called by the loop."""
        self.idle_since = None
        self._buffer += data
        if not self.answering:
            self._advance()
        elif len(self._buffer) > MAX_AHEAD_BYTES and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def refuse(self, status: int, message: str) -> None:
        """Answer whatever is asked now, and close."""
        if self.answering and self._cancel is not None:
            self._cancel()
        self._write(self._server.refuse(status, message), keeps=False, body=True)

    def close_idle(self) -> None:
        """Close a connection without a request."""
        if not self.answering:
            self._transport.close()

    def _advance(self) -> None:
        try:
            while not self.answering and not self._transport.is_closing():
                if self._head is None:
                    self._head = self._take_head()
                    if self._head is None:
                        return
                body = self._take_chunks() if self._head.chunked else self._take_body(self._head.length)
                if body is None:
                    return
                head, self._head = self._head, None
                self._answer(head, body)
        except BadRequest as bad:
            self._buffer.clear()
            self.refuse(bad.status, str(bad))

    def _take_head(self) -> Optional[_Head]:
        while self._buffer.startswith(b"\r\n"):  # some clients end a body with one line end too many
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._buffer) >= MAX_HEAD_BYTES:
                raise BadRequest(431, "the headers are longer than %d bytes" % MAX_HEAD_BYTES)
            return None
        head = parse_head(bytes(self._buffer[:end]))
        del self._buffer[: end + 4]
        if head.headers.get(b"expect", b"").lower() == b"100-continue" and not self._buffer:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return head

    def _take_body(self, length: int) -> Optional[bytes]:
        there = len(self._buffer)
        if there < length:
            return None
        if there == length:
            body, self._buffer = bytes(self._buffer), bytearray()
            return body
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _take_chunks(self) -> Optional[bytes]:
        while True:
            line_end = self._buffer.find(b"\r\n", 0, MAX_HEAD_BYTES)
            if line_end < 0:
                if len(self._buffer) >= MAX_HEAD_BYTES:
                    raise BadRequest(400, "the line before a chunk does not end")
                return None
            size_text = bytes(self._buffer[:line_end]).partition(b";")[0].strip()
            if not _SIZE.fullmatch(size_text):
                raise BadRequest(400, "%r is not the size of a chunk" % size_text[:40].decode("latin-1"))
            size = int(size_text, 16)
            if not size:
                return self._end_chunks(line_end)
            start = line_end + 2
            if len(self._buffer) < start + size + 2:
                return None
            if self._buffer[start + size : start + size + 2] != b"\r\n":
                raise BadRequest(400, "a chunk is longer than its size")
            self._pieces.append(bytes(self._buffer[start : start + size]))
            del self._buffer[: start + size + 2]

    def _end_chunks(self, line_end: int) -> Optional[bytes]:
        end = self._buffer.find(b"\r\n\r\n", line_end)  # there may be headers after the last chunk
        if end < 0:
            if len(self._buffer) - line_end > MAX_HEAD_BYTES:
                raise BadRequest(431, "the headers after the body are too long")
            return None
        del self._buffer[: end + 4]
        body = b"".join(self._pieces)
        self._pieces = []
        return body

    def _answer(self, head: _Head, body: bytes) -> None:
        self.answering = True
        keeps, with_body = head.keeps, head.method != "HEAD"

        def reply(answer: Answer) -> None:
            if self.answering:  # else the client has gone
                self._write(answer, keeps, with_body)
                if self._buffer:
                    self._server.loop.call_soon(self._go_on)

        self._cancel = self._server.handle(Request(head.method, head.path, head.query, head.headers, body), reply)

    def _go_on(self) -> None:
        """Look at what has arrived while the last request was answered."""
        if self._transport.is_closing() or self.answering:
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._advance()

    def _write(self, answer: Answer, keeps: bool, body: bool) -> None:
        self.answering = False
        self._cancel = None
        if self._transport.is_closing():
            return
        keeps = keeps and not self._server.stopping
        lines = ["HTTP/1.1 %d %s" % (answer.status, REASONS.get(answer.status, ""))]
        lines.append("content-type: %s\r\ncontent-length: %d" % (answer.content_type, len(answer.body)))
        lines.extend("%s: %s" % header for header in answer.headers)
        if not keeps:
            lines.append("connection: close")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
        self._transport.write(head + answer.body if body else head)
        if keeps:
            self.idle_since = self._server.loop.time()
        else:
            self._transport.close()


class HttpServer:
    """Listens, and gives each request to ``handle``. ``refuse`` makes the answer for what is no request."""

    def __init__(self, loop: asyncio.AbstractEventLoop, handle: Handler, refuse: Refuse) -> None:
        self.loop = loop
        self.handle = handle
        self.refuse = refuse
        self.connections: Set[Connection] = set()
        self.stopping = False
        self._ended: Optional["asyncio.Future[None]"] = None
        self._listening: Any = None

    async def listen(self, listener: socket.socket) -> None:
        """Accept connections from now on."""
        self._listening = await self.loop.create_server(lambda: Connection(self), sock=listener, backlog=2048)
        self.loop.call_later(SWEEP_SECONDS, self._sweep)

    async def stop(self, seconds: float, reason: str) -> None:
        """Accept no more connections; requests in flight get ``seconds``, those that take longer the answer 503."""
        self.stopping = True
        self._listening.close()
        for connection in list(self.connections):
            connection.close_idle()
        if self.connections:
            self._ended = self.loop.create_future()
            await asyncio.wait([self._ended], timeout=seconds)
        for connection in list(self.connections):
            connection.refuse(503, reason)

    def note_end(self) -> None:
        """A connection has ended."""
        if self._ended is not None and not self.connections and not self._ended.done():
            self._ended.set_result(None)

    def _sweep(self) -> None:
        oldest = self.loop.time() - KEEP_ALIVE_SECONDS
        for connection in list(self.connections):
            if connection.idle_since is not None and connection.idle_since < oldest:
                connection.close_idle()
        if not self.stopping:
            self.loop.call_later(SWEEP_SECONDS, self._sweep)


def parse_head(head: bytes) -> _Head:
    """Request line and headers. Raises BadRequest."""
    first, *lines = head.split(b"\r\n")
    parts = first.split(b" ")
    if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not parts[2].startswith(b"HTTP/"):
        raise BadRequest(400, "%r is not the first line of a request" % first[:80].decode("latin-1"))
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise BadRequest(505, "HTTP/1.1 is spoken here")
    headers: Dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.fullmatch(name):
            raise BadRequest(400, "%r is not a header" % line[:80].decode("latin-1"))
        name, value = name.lower(), value.strip(b" \t")
        if name == b"content-length" and headers.get(name, value) != value:
            raise BadRequest(400, "there are two lengths of the body")
        headers[name] = value
    coding = headers.get(b"transfer-encoding", b"").lower()
    length = headers.get(b"content-length", b"0")
    if coding not in (b"", b"chunked") or (coding and b"content-length" in headers):
        raise BadRequest(400, "a body has a length or is chunked")
    if not (length.isdigit() and len(length) <= 15):
        raise BadRequest(400, "%r is not a length" % length[:40].decode("latin-1"))
    path, query = _split_target(target.decode("latin-1"))
    wish = headers.get(b"connection", b"").lower()
    keeps = wish != b"close" if version == b"HTTP/1.1" else False
    return _Head(method.decode("ascii"), path, query, headers, int(length), bool(coding), keeps)


def _split_target(target: str) -> Tuple[str, str]:
    if not target.startswith("/"):
        whole = urlsplit(target)  # as for a proxy: with scheme and host
        target = (whole.path or "/") + ("?" + whole.query if whole.query else "")
    path, _, query = target.partition("?")
    return (unquote(path) if "%" in path else path), query
