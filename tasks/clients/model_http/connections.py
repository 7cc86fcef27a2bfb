"""The connections to one model server: opened on demand, reused, and from time to time left quiet for a moment."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque

from tasks.clients.model_http.http_connection import TURN_SECONDS, HttpConnection
from tasks.clients.model_http.http_reply import NO_SUCH_HOST, NO_TLS, NoConnection

CONNECT_SECONDS = 30.0
_UNKNOWN_HOST = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}
IDLE_SECONDS = 30.0
SLOW_SECONDS = 0.25
"""Responses this slow need no kept connections: making certain of them costs more than connecting."""
CONNECTS = 20
"""Slow responses also take at least this many times as long as connecting."""
REST_SHARE = 8
"""One in this many open connections rests (is left quiet) at a time."""


class Reuse:
    """Whether connections are given more than one request: as long as every response belongs to a request.

    Shared by all model servers of a run in one process, since they are the same program.
    """

    def __init__(self) -> None:
        self.allowed = True


class Connections:
    """The connections to one address. Belongs to one event loop; :meth:`close` when done.

    They are as many as there were concurrent requests, and some more while others rest, but never more than ``most``
    if that is given. The most recently used one is used next. Opening one takes at most ``timeout_seconds``.
    """

    def __init__(
        self,
        host: str,
        port: int,
        context: ssl.SSLContext | None,
        *,
        timeout_seconds: float,
        max_answer_bytes: int,
        reuse: Reuse,
        most: int | None,
    ) -> None:
        self._address = (host, port)
        self._ssl = context
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes
        self._reuse = reuse
        self._most = most
        self._loop = asyncio.get_running_loop()
        self._idle: list[HttpConnection] = []
        self.open: set[HttpConnection] = set()
        self._opening = 0
        self._waiting: deque[asyncio.Future[HttpConnection | None]] = deque()
        self._closed = False
        self._connect_seconds = CONNECT_SECONDS
        self._usual_seconds = 0.0
        self._slow = False
        # In a round, each connection is quiet once.
        self._unquiet: set[HttpConnection] = set()
        self._resting: set[HttpConnection] = set()
        self._over: asyncio.Future[None] | None = None
        self._this_round: asyncio.Task[None] | None = None
        self._next_round: asyncio.Task[None] | None = None
        self._letting_go: asyncio.Task[None] | None = None

    @property
    def single(self) -> bool:
        """Whether each request has a connection of its own now."""
        return self._slow or not self._reuse.allowed

    def idle(self, now: float) -> HttpConnection | None:
        """A free connection. Those idle for long are closed: the network may have dropped them."""
        while self._idle:
            connection = self._idle.pop()
            if now - connection.answered_at < IDLE_SECONDS:
                return connection
            connection.abort()
        return None

    async def take(self, *, single: bool) -> HttpConnection:
        """A new connection; at the limit, one that has rested. A ``single`` request always gets a new one.

        Raises NoConnection.
        """
        if single and self._idle:
            self._let_go()
        while not single and self._most is not None and self._resting and len(self.open) + self._opening >= self._most:
            turn: asyncio.Future[HttpConnection | None] = self._loop.create_future()
            self._waiting.append(turn)
            try:
                rested = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and (given := turn.result()) is not None:
                    self._free(given)
                raise
            if rested is not None and rested.usable:
                return rested
        return await self._connect()

    async def _connect(self) -> HttpConnection:
        connection = HttpConnection(self._max_answer_bytes, self._forget)
        started = self._loop.time()
        self._opening += 1
        seconds = min(CONNECT_SECONDS, self._timeout_seconds)
        try:
            async with asyncio.timeout(seconds):
                await self._loop.create_connection(lambda: connection, *self._address, ssl=self._ssl)
        except TimeoutError:
            raise NoConnection(f"no connection within {seconds:g} s") from None
        except socket.gaierror as error:
            unknown = error.errno in _UNKNOWN_HOST
            raise NoConnection(f"{NO_SUCH_HOST if unknown else 'no connection'} ({error.strerror})") from None
        except OSError as error:
            passes = not isinstance(error, ssl.SSLError) or isinstance(error, ssl.SSLEOFError)
            what = "no connection" if passes else NO_TLS
            reason = getattr(error, "verify_message", "") or error.strerror or str(error) or "unknown"
            raise NoConnection(f"{what} ({reason})") from None
        finally:
            self._opening -= 1
        self._connect_seconds = min(self._connect_seconds, self._loop.time() - started)
        if self._closed:
            connection.abort()
        else:
            self.open.add(connection)
        return connection

    def give_back(self, connection: HttpConnection, seconds: float) -> None:
        """Return a connection that got its response after ``seconds``: reuse it, or let it rest first."""
        usual = self._usual_seconds
        self._usual_seconds = usual = usual + 0.125 * (seconds - usual) if usual else seconds
        self._slow = usual >= SLOW_SECONDS and usual >= CONNECTS * self._connect_seconds
        if not connection.usable:
            return
        if connection in self._unquiet and len(self._resting) < max(1, len(self.open) // REST_SHARE):
            self._resting.add(connection)
        elif self._waiting:
            self._free(connection)
        else:
            self._idle.append(connection)

    def _free(self, connection: HttpConnection) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(connection)
                return
        self._idle.append(connection)

    def _forget(self, connection: HttpConnection) -> None:
        self.open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if connection.stretch.doubted and not self._closed:
            self._reuse.allowed = False
            self._let_go()
        self._was_quiet(connection)
        if self._waiting and not (turn := self._waiting.popleft()).done():
            turn.set_result(None)

    def _let_go(self) -> None:
        """Close the kept connections once they are quiet: no request will be given to them."""
        if self._letting_go is None or self._letting_go.done():
            self._letting_go = asyncio.create_task(self.settle())

    # --- quiet

    async def settle(self) -> None:
        """Let each connection be quiet once: then every response so far is either settled or doubted."""
        if self._next_round is None:
            self._next_round = asyncio.create_task(self._round(self._this_round))
        await asyncio.shield(self._next_round)

    async def _round(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._this_round, self._next_round = self._next_round, None
        if self.single:
            for connection in [one for one in self._idle if one.stretch.settled]:
                connection.abort()
        self._unquiet = {connection for connection in self.open if not connection.stretch.settled}
        if not self._unquiet:
            return
        self._over = self._loop.create_future()
        self._resting = self._unquiet.intersection(self._idle)
        self._idle = [connection for connection in self._idle if connection not in self._resting]
        for connection in [*self._unquiet]:
            self._look(connection)
        await self._over

    def _look(self, connection: HttpConnection) -> None:
        if connection in self._unquiet:
            seconds = connection.quiet_at - self._loop.time()
            if seconds > 0:
                self._loop.call_later(seconds, self._look, connection)
            else:
                self._loop.call_later(TURN_SECONDS, self._look_again, connection, connection.answered_at)

    def _look_again(self, connection: HttpConnection, answered_at: float) -> None:
        if connection not in self._unquiet:
            return
        if connection.answered_at != answered_at or connection.quiet_at > self._loop.time():
            self._look(connection)
            return
        connection.settle()
        rested = connection in self._resting
        self._was_quiet(connection)
        if self.single and connection.usable:
            connection.abort()
        elif rested:
            self._free(connection)

    def _was_quiet(self, connection: HttpConnection) -> None:
        self._unquiet.discard(connection)
        self._resting.discard(connection)
        if not self._unquiet and self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def close(self) -> None:
        """Close every connection; requests in flight get no response."""
        self._closed = True
        for connection in [*self.open]:
            connection.abort()
        rounds = [one for one in (self._this_round, self._next_round, self._letting_go) if one is not None]
        await asyncio.gather(*rounds, return_exceptions=True)
        await asyncio.sleep(0)  # let the event loop close them
