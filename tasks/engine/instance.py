"""One instance of a process: its model server, and the requests sent to it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from tasks.clients.instances.launcher import Server
from tasks.clients.instances.running_server import RunningServer
from tasks.clients.instances.sidecar import Sidecar
from tasks.clients.model_http.model_server import ModelClient
from tasks.clients.processes.devices import DeviceLease
from tasks.domain.concurrency import AdaptiveLimit
from tasks.domain.errors import ModelServerError, ThresherError
from tasks.domain.instance import Deaths
from tasks.domain.outage import Outage
from tasks.domain.request import Body
from tasks.engine.recovery import Recovery

DEATH_SEEN_SECONDS = 0.5
"""How long after a broken connection to wait for the end of the model server's process."""


class Instance:
    """One model server and the requests sent to it."""

    def __init__(self, number: int, limit: AdaptiveLimit, outage: Outage) -> None:
        self.number = number
        self.limit = limit
        self.outage = outage
        self.recovery: Recovery | None = None
        self.url = ""
        self.answered: Body | None = None
        """A request that it has answered."""
        self.in_flight = 0
        self.busy_since = 0.0
        """Start of the time during which it has always had a request in flight."""
        self.suspects = 0
        self.generation = 0
        self.client: ModelClient | None = None
        self.server: Server | Sidecar | None = None
        self.running: RunningServer | None = None
        """The server, if it runs already and is not started here; ``server`` is then None."""
        self.devices: DeviceLease | None = None
        self.ready = asyncio.Event()
        self.alone = asyncio.Lock()
        self.turn: asyncio.Future[None] | None = None
        """Turn of the request that waits until no other is in flight."""
        self.deaths = Deaths()
        self.given_up: ModelServerError | None = None

    @property
    def free(self) -> int:
        """How many more requests it accepts: zero while suspects are retried one at a time."""
        if not self.ready.is_set() or self.suspects:
            return 0
        if self.outage.holds:
            return int(self.outage.probe)
        return self.limit.limit - self.in_flight

    @property
    def takes_one_alone(self) -> bool:
        """Whether it now accepts a request that must be its only one."""
        return self.ready.is_set() and not self.in_flight and (not self.outage.holds or self.outage.probe)

    @property
    def keeps_none_waiting(self) -> bool:
        """Whether no request should wait for this instance: it was given up, or its outage has lasted too long."""
        return self.given_up is not None or self.outage.passed(time.monotonic())

    @property
    def joined(self) -> bool:
        """Whether it takes part: it is not given up, and if its server runs already, that has been reached."""
        return self.given_up is None and (self.running is None or self.ready.is_set())

    def take(self) -> None:
        """Take a place for a request."""
        if not self.in_flight:
            self.busy_since = time.monotonic()
        self.in_flight += 1
        self.outage.probe = False

    async def died_since(self, generation: int) -> bool:
        """Whether the server has died since a request was sent to its ``generation``."""
        if self.generation != generation:
            return True
        server = self.server
        if server is None:
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(DEATH_SEEN_SECONDS):
                await server.command_ended()
        return self.generation != generation or not server.running


def as_server_error(error: BaseException) -> ModelServerError:
    """The error that prevented the start of an instance, as the one type that callers expect."""
    if isinstance(error, ModelServerError):
        return error
    if isinstance(error, ThresherError):
        return ModelServerError(f"The instance could not be started: {error}")
    return ModelServerError(f"The instance could not be started: {type(error).__name__}: {error}")
