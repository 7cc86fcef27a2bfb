"""HTTP to one instance: one request, one answer."""

from __future__ import annotations

import asyncio
import base64
import ssl
import sys
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, unquote, urlsplit

from tasks.clients.http_connection import ConnectionBroken, HttpConnection, Reply, ReplyLate, ReplyTooLarge
from tasks.clients.http_headers import retry_after
from tasks.domain.request import Body
from tasks.domain.retry import Failure

CONNECT_SECONDS = 30.0
IDLE_SECONDS = 30.0
HEADS_KEPT = 100


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status and the body."""

    status: int
    data: bytes


class RequestFailed(Exception):
    """A request that brought no success: what retry.decide needs, and the answer if there was one."""

    def __init__(self, failure: Failure, cause: str, answer: Answer | None = None) -> None:
        super().__init__(cause)
        self.failure = failure
        self.cause = cause
        self.answer = answer


class ModelClient:
    """Sends requests to one model server. Belongs to one event loop; ``close`` when done.

    There are as many connections as there were requests at once, and they are kept; the one used last is used next.
    Proxies are not asked, redirects not followed, and answers are taken as they are: a result file is the answer, byte
    for byte. A user name in the address is sent (basic authentication).
    """

    def __init__(
        self, url: str, method: str, request_path: str, timeout_seconds: float, max_answer_bytes: int = sys.maxsize
    ) -> None:
        parts = urlsplit(url.rstrip("/") + request_path)
        self._host, self._port = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)
        self._start = _head(parts, method)
        self._heads: dict[str, bytes] = {}
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        self._idle: list[HttpConnection] = []
        self._open: set[HttpConnection] = set()
        self._closed = False

    async def predict(self, body: Body) -> Answer:
        """Send one request; its answer if the status is a success (2xx). Raises RequestFailed."""
        if body.parts:
            first, *others = body.parts
            parts = (b"%b%d\r\n\r\n%b" % (self._head_of(body.content_type), body.size, first), *others)
        else:
            parts = (self._start + b"\r\n",)
        try:
            connection = self._rested()
            if connection is None:
                reply = await self._ask_anew(parts)
            else:
                reply = await self._ask(connection, parts, self._timeout_seconds)
        except ReplyLate:
            cause = f"no answer within {self._timeout_seconds:g} s"
            raise RequestFailed(Failure("timeout"), cause) from None
        except ReplyTooLarge as larger:
            limit = self._max_answer_bytes
            cause = f"The model's answer has more than {limit} bytes ({limit / (1 << 20):g} MiB)."
            raise RequestFailed(Failure("size", larger.status), cause) from None
        except ConnectionBroken as broken:
            raise RequestFailed(Failure("connection"), str(broken)) from None
        if 200 <= reply.status < 300:
            return Answer(reply.status, reply.data)
        failure = Failure("status", reply.status, retry_after(reply.retry_after))
        raise RequestFailed(failure, f"HTTP {reply.status}", Answer(reply.status, reply.data))

    def _rested(self) -> HttpConnection | None:
        """A connection that waits for a request; those that have waited long may have been dropped on the way."""
        while self._idle:
            connection = self._idle.pop()
            if asyncio.get_running_loop().time() - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    def _head_of(self, content_type: str) -> bytes:
        head = self._heads.get(content_type)
        if head is None:
            head = b"%bContent-Type: %b\r\nContent-Length: " % (self._start, content_type.encode("latin-1"))
            if len(self._heads) < HEADS_KEPT:
                self._heads[content_type] = head
        return head

    async def _ask(self, connection: HttpConnection, parts: tuple[bytes, ...], seconds: float) -> Reply:
        reply = await connection.ask(parts, seconds)
        if connection.usable:
            connection.idle_since = asyncio.get_running_loop().time()
            self._idle.append(connection)
        return reply

    async def _ask_anew(self, parts: tuple[bytes, ...]) -> Reply:
        """As :meth:`_ask`, on a new connection; opening it counts to the time. Raises what that raises."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        connection = await self._connect()
        return await self._ask(connection, parts, self._timeout_seconds - (loop.time() - started))

    async def _connect(self) -> HttpConnection:
        loop = asyncio.get_running_loop()
        connection = HttpConnection(self._max_answer_bytes, self._forget)
        try:
            async with asyncio.timeout(min(CONNECT_SECONDS, self._timeout_seconds)):
                await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._ssl)
        except TimeoutError:
            raise ReplyLate from None
        except OSError as error:
            reason = getattr(error, "verify_message", "") or error.strerror or str(error) or "unknown"
            raise ConnectionBroken(f"no connection ({reason})") from None
        if self._closed:
            connection.abort()
        else:
            self._open.add(connection)
        return connection

    def _forget(self, connection: HttpConnection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    async def close(self) -> None:
        """Close every connection; requests that are under way get no answer."""
        self._closed = True
        for connection in [*self._open]:
            connection.abort()
        await asyncio.sleep(0)  # the event loop closes them


_PORTS = {"http": 80, "https": 443}
_KEPT = "/:@!$&'()*+,;=-._~%"
"""Signs of a path that are sent as they are (RFC 3986), and what is percent-encoded already."""


def _head(url: SplitResult, method: str) -> bytes:
    """The first lines of every request, up to what its body decides. Raises ValueError if the address is none."""
    host = (url.hostname or "").encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    where = host if url.port in (None, _PORTS.get(url.scheme)) else f"{host}:{url.port}"
    target = quote(url.path or "/", _KEPT) + (f"?{quote(url.query, _KEPT + '?/')}" if url.query else "")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {where}", "Accept: */*", "Accept-Encoding: identity"]
    lines.append("User-Agent: thresher")
    if url.username is not None:
        named = f"{unquote(url.username)}:{unquote(url.password or '')}"
        lines.append(f"Authorization: Basic {base64.b64encode(named.encode()).decode()}")
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
