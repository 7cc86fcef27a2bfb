"""HTTP to one instance: one request, one response."""

from __future__ import annotations

import asyncio
import base64
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from urllib.parse import SplitResult, quote, unquote

from tasks.clients.http_headers import retry_after
from tasks.clients.model_http.connections import Connections, Reuse
from tasks.clients.model_http.http_connection import COUNTED_BYTES
from tasks.clients.model_http.http_reply import (
    EXPLAINED,
    ConnectionBroken,
    NoConnection,
    Reply,
    ReplyDoubted,
    ReplyLate,
    ReplyTooLarge,
    ReplyUnclear,
    Room,
    Stretch,
)
from tasks.domain.encoding import decoded, is_encoded
from tasks.domain.errors import AnswerError
from tasks.domain.request import Body
from tasks.domain.retry import Failure, Kind
from tasks.domain.running_address import asked

HEADS_KEPT = 100
LARGE_BYTES = 16 << 10


@dataclass(slots=True)
class Answer:
    """A response: the status, the body, and the stretch of its connection, which may be doubted later."""

    status: int
    data: bytes
    stretch: Stretch = field(default_factory=partial(Stretch, settled=True), compare=False, repr=False)
    location: str = ""


class RequestFailed(Exception):
    """An unsuccessful request: the failure for retry.decide, and the response if there was one."""

    def __init__(self, failure: Failure, cause: str, answer: Answer | None = None) -> None:
        super().__init__(cause)
        self.failure = failure
        self.cause = cause
        self.answer = answer


class ModelClient:
    """Sends requests to one model server. Belongs to one event loop; ``close`` when done.

    Proxies are not used, redirects are not followed, and responses are left unchanged except for gzip and deflate: a
    result file is the response, byte for byte. A user name in the address is sent (basic authentication). ``headers``
    are sent with each request. There are never more than ``most_connections``, if that is given. A server that
    ``explains`` marks a 500 that an exception of the package itself has caused.
    """

    def __init__(
        self,
        url: str,
        method: str,
        request_path: str,
        timeout_seconds: float,
        max_answer_bytes: int = sys.maxsize,
        *,
        headers: Mapping[str, str] | None = None,
        reuse: Reuse | None = None,
        most_connections: int | None = None,
        explains: bool = False,
    ) -> None:
        parts = asked(url, request_path)
        self._start = _head(parts, method, headers or {})
        self._explains = explains
        self._heads: dict[tuple[str, bool], bytes] = {}
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        self._loop = asyncio.get_running_loop()
        self.connections = Connections(
            parts.hostname or "",
            parts.port or _PORTS.get(parts.scheme, 80),
            ssl.create_default_context() if parts.scheme == "https" else None,
            timeout_seconds=timeout_seconds,
            max_answer_bytes=max_answer_bytes,
            reuse=reuse or Reuse(),
            most=most_connections,
        )

    async def predict(self, body: Body, room: Room | None = None) -> Answer:
        """Send one request; its response if the status is a success (2xx). Raises RequestFailed.

        ``room`` bounds the bytes of responses held in memory at once.
        """
        try:
            reply = await self._ask(body, room)
        except ReplyLate:
            cause = f"no answer within {self._timeout_seconds:g} s"
            raise RequestFailed(Failure("timeout"), cause) from None
        except ReplyTooLarge as larger:
            limit = self._max_answer_bytes
            cause = f"The model's answer has more than {limit} bytes ({limit / (1 << 20):g} MiB)."
            raise RequestFailed(Failure("unusable", larger.status), cause) from None
        except ReplyUnclear as unclear:
            cause = "The model's answer has more bytes than its Content-Length or its chunks say, so it may be cut."
            raise RequestFailed(Failure("unusable", unclear.status), cause) from None
        except ConnectionBroken as broken:
            kind: Kind = "refused" if isinstance(broken, NoConnection) else "connection"
            raise RequestFailed(Failure(kind), str(broken)) from None
        answer = Answer(reply.status, reply.data, reply.stretch, reply.headers.get(b"location", ""))
        success = 200 <= reply.status < 300
        if reply.encoding and reply.data and is_encoded(reply.encoding):
            try:
                answer = replace(answer, data=await self._decoded(reply, room, whole=success))
            except AnswerError as error:
                if success:
                    raise RequestFailed(Failure("unusable", reply.status), str(error), answer) from None
        if success:
            return answer
        explained = self._explains and reply.status == 500 and EXPLAINED in reply.headers
        failure = Failure("status", reply.status, retry_after(reply.headers.get(b"retry-after")), explained)
        raise RequestFailed(failure, f"HTTP {reply.status}", answer)

    async def _ask(self, body: Body, room: Room | None) -> Reply:
        connections = self.connections
        size = body.size
        while True:
            single = connections.single
            if body.parts:
                first, *others = body.parts
                head = self._head_of(body.content_type, single)
                parts = (b"%b%d\r\n\r\n%b" % (head, size, first), *others)
            else:
                parts = (self._start + (_CLOSE if single else b"") + b"\r\n",)
            began = self._loop.time()
            connection = None if single else connections.idle(began)
            if connection is None:
                connection = await connections.take(single=single)
            try:
                # Connecting counts towards the time-out. Small requests are sent at once.
                deadline, large = began + self._timeout_seconds, size >= LARGE_BYTES
                reply = await connection.ask(parts, deadline, only=single, large=large, room=room)
            except ReplyDoubted:
                continue  # from now on, each request has a connection of its own, where this cannot happen
            connections.give_back(connection, connection.answered_at - began)
            if not reply.stretch.doubted:
                return reply

    async def _decoded(self, reply: Reply, room: Room | None, *, whole: bool) -> bytes:
        """The decoded body (its Content-Encoding undone); only its beginning unless ``whole``. Raises AnswerError."""
        pieces: list[bytes] = []
        turn = asyncio.Event()
        counted = 0
        try:
            for piece in decoded(reply.encoding, reply.data, self._max_answer_bytes):
                pieces.append(piece)
                if not whole:
                    break
                turn.clear()
                if room is not None and len(piece) > COUNTED_BYTES:
                    counted += len(piece)
                    if not room.arrive(len(piece), turn.set):
                        await turn.wait()
                await asyncio.sleep(0)
        except BaseException:
            if room is not None:
                room.ended(counted, turn.set, whole=False)
            raise
        return b"".join(pieces)

    def _head_of(self, content_type: str, single: bool) -> bytes:
        head = self._heads.get((content_type, single))
        if head is None:
            start = self._start + (_CLOSE if single else b"")
            head = b"%bContent-Type: %b\r\nContent-Length: " % (start, content_type.encode("latin-1"))
            if len(self._heads) < HEADS_KEPT:
                self._heads[content_type, single] = head
        return head

    async def close(self) -> None:
        """Close every connection; requests in flight get no response."""
        await self.connections.close()


_CLOSE = b"Connection: close\r\n"
_PORTS = {"http": 80, "https": 443}
_KEPT = "/:@!$&'()*+,;=-._~%"
"""Characters of a path that are sent unchanged (RFC 3986); ``%`` keeps existing percent-encoding."""


def _head(url: SplitResult, method: str, given: Mapping[str, str]) -> bytes:
    """The request line and headers, without those that depend on the body. Raises ValueError for an invalid address.

    A ``given`` header replaces the default of the same name.
    """
    host = (url.hostname or "").encode("idna").decode()
    host = f"[{host}]" if ":" in host else host
    where = host if url.port in (None, _PORTS.get(url.scheme)) else f"{host}:{url.port}"
    target = quote(url.path or "/", _KEPT) + (f"?{quote(url.query, _KEPT + '?/')}" if url.query else "")
    headers = {"Host": where, "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "thresher"}
    if url.username is not None:
        named = f"{unquote(url.username)}:{unquote(url.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(named.encode()).decode()}"
    own = {name.lower(): (name, value) for name, value in given.items()}
    sent = [*(own.pop(name.lower(), (name, value)) for name, value in headers.items()), *own.values()]
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in sent)]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")
