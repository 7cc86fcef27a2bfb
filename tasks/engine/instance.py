"""One instance of a process: its model server, and the requests that it is given."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from tasks.clients.devices import DeviceLease
from tasks.clients.launcher import Server
from tasks.clients.model_server import ModelClient
from tasks.clients.running_server import RunningServer
from tasks.clients.sidecar import Sidecar
from tasks.domain.concurrency import AdaptiveLimit
from tasks.domain.errors import ModelServerError, ThresherError
from tasks.domain.instance import Deaths
from tasks.domain.outage import Outage
from tasks.domain.request import Body
from tasks.engine.recovery import Recovery

DEATH_SEEN_SECONDS = 0.5
"""How long after a broken connection the end of the process is waited for."""


class Instance:
    """One model server and the requests it is given."""

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
        """Since when it has had requests without a pause."""
        self.suspects = 0
        self.generation = 0
        self.client: ModelClient | None = None
        self.server: Server | Sidecar | None = None
        self.running: RunningServer | None = None
        """The server at its address, if that runs already; then ``server`` is None."""
        self.devices: DeviceLease | None = None
        self.ready = asyncio.Event()
        self.alone = asyncio.Lock()
        self.turn: asyncio.Future[None] | None = None
        """Of the request that waits until it can be the only one."""
        self.deaths = Deaths()
        self.given_up: ModelServerError | None = None

    @property
    def free(self) -> int:
        """Requests that it takes right now. None while suspects of a death are tried one by one."""
        if not self.ready.is_set() or self.suspects:
            return 0
        if self.outage.holds:
            return int(self.outage.probe)
        return self.limit.limit - self.in_flight

    @property
    def takes_one_alone(self) -> bool:
        """Whether it takes a request now that is to be its only one."""
        return self.ready.is_set() and not self.in_flight and (not self.outage.holds or self.outage.probe)

    @property
    def keeps_nobody(self) -> bool:
        """Whether no request is to wait for this instance any more: it was given up, or has been down for so long."""
        return self.given_up is not None or self.outage.passed(time.monotonic())

    @property
    def joined(self) -> bool:
        """Whether it takes part: a server that runs elsewhere, but was not there at the start, does once it is."""
        return self.given_up is None and (self.running is None or self.ready.is_set())

    def take(self) -> None:
        """A request is given to it."""
        if not self.in_flight:
            self.busy_since = time.monotonic()
        self.in_flight += 1
        self.outage.probe = False

    async def died_since(self, generation: int) -> bool:
        """Whether the server has died since a request was given to ``generation`` of it."""
        if self.generation != generation:
            return True
        server = self.server
        if server is None:
            return False
        with suppress(TimeoutError):
            await asyncio.wait_for(server.command_ended(), DEATH_SEEN_SECONDS)
        return self.generation != generation or not server.running


def as_server_error(error: BaseException) -> ModelServerError:
    """Whatever kept an instance from being started, as the one error that those who wait for it know."""
    if isinstance(error, ModelServerError):
        return error
    if isinstance(error, ThresherError):
        return ModelServerError(f"The instance could not be started: {error}")
    return ModelServerError(f"The instance could not be started: {type(error).__name__}: {error}")
