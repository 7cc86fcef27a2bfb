"""The instances of one process: kept running, given requests, restarted when they die."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

from tasks.clients.instances.launcher import Server
from tasks.clients.instances.running_server import RunningServer, first_there
from tasks.clients.instances.sidecar import BACK_SECONDS
from tasks.clients.processes.devices import device_kind
from tasks.domain.concurrency import AdaptiveLimit
from tasks.domain.errors import ModelServerError
from tasks.domain.instance import device_variables
from tasks.domain.outage import Outage
from tasks.domain.paths import redact
from tasks.engine.instance import Instance, as_server_error
from tasks.engine.outages import Outages
from tasks.engine.servers import ModelServers
from tasks.engine.turns import Turns

START_TRIES = 3


class Listener(Protocol):
    """Learns what happens to the instances of a group."""

    def changed(self, group: InstanceGroup) -> None:
        """An instance has died, was given up, went down, or is healthy again."""

    def absent(self, cause: str) -> None:
        """No running server is reachable yet, at the start."""

    def cannot_go_on(self, group: InstanceGroup, cause: str) -> None:
        """The run cannot go on: no server has answered for the longest outage, or one answers that it may not."""


class InstanceGroup:
    """All instances of one process; balances requests among them.

    The instances have ``numbers``, one for each of the ``servers`` that run already. ``outage_seconds`` is how long an
    outage may last (0: each refusal counts against its request).
    """

    def __init__(
        self,
        numbers: Sequence[int],
        servers: ModelServers,
        listener: Listener,
        *,
        timeout_seconds: float,
        max_concurrency: int | None,
        outage_seconds: float,
    ) -> None:
        self.instances = [
            Instance(number, AdaptiveLimit(max_concurrency), Outage(outage_seconds)) for number in numbers
        ]
        self._servers = servers
        self._listener = listener
        self._timeout_seconds = timeout_seconds
        self._outage_seconds = outage_seconds
        self.outages = Outages(
            self.instances,
            servers.health,
            may_be_denied=servers.run_already,
            on_change=self._look_again,
            on_end=lambda cause: listener.cannot_go_on(self, cause),
        )
        self._waiting = Turns()
        self._keepers: list[asyncio.Task[None]] = []
        self._lost: ModelServerError | None = None
        self._stopped = False
        self._first_ready = asyncio.Event()
        self.notes: list[str] = []
        """Notes on the instances for the user of the run."""

    @property
    def capacity(self) -> int:
        """Most requests that may ever be in flight, in all instances together."""
        return sum(instance.limit.cap for instance in self.instances)

    @property
    def limit(self) -> int:
        """Current concurrency limit of all instances together."""
        return sum(instance.limit.limit for instance in self.instances)

    @property
    def deaths(self) -> int:
        """How often a model server died."""
        return sum(instance.deaths.total for instance in self.instances)

    @property
    def sick(self) -> int:
        """Number of instances that were given up, are away, or have died and are not healthy again yet."""
        return sum(
            instance.given_up is not None
            or instance.outage.away
            or ((instance.generation > 0 or instance.running is not None) and not instance.ready.is_set())
            for instance in self.instances
        )

    @property
    def lost(self) -> bool:
        """Whether every instance was given up."""
        return self._lost is not None

    @property
    def loss(self) -> str:
        """Why the last instance was given up; empty while one is left."""
        return str(self._lost or "")

    @property
    def ready(self) -> bool:
        """Whether an instance is up: it accepts requests, or would if it were not full."""
        return any(instance.ready.is_set() and instance.given_up is None for instance in self.instances)

    async def start(self) -> None:
        """Prepare and start; returns when one instance is healthy (the others join as they become healthy).

        Raises ModelServerError if no instance can be started; ServerAway if running servers stay away for the longest
        outage allowed.
        """
        if self._servers.run_already:
            await self._meet(await self._servers.running())
            return
        for instance in self.instances:
            self._keep_by(instance, self._keep(instance))
        await self._first_ready.wait()
        if self._lost is not None:
            raise self._lost

    async def _meet(self, servers: Sequence[RunningServer]) -> None:
        """Take in the reachable servers, at least one; the others join once they are reachable."""
        try:
            there = await first_there(servers, self._outage_seconds, self._listener.absent)
        except ModelServerError as error:
            raise type(error)(self._servers.masker.block(str(error))) from None
        for instance, server in zip(self.instances, servers, strict=True):
            instance.running = server
            if server in there:
                self._take_in(instance, server.address)
            else:
                self.notes.append(f"the model server {redact(server.address)} was not there at the start")
                self._keep_by(instance, self._join(instance, server))
        self._listener.changed(self)

    async def _join(self, instance: Instance, server: RunningServer) -> None:
        await server.there()
        self._take_in(instance, server.address)

    def _keep_by(self, instance: Instance, work: Coroutine[Any, Any, None]) -> None:
        keeper = asyncio.create_task(work)
        keeper.add_done_callback(partial(self._kept, instance))
        self._keepers.append(keeper)

    async def _keep(self, instance: Instance) -> None:
        """Start an instance, and restart it whenever it dies, until it is given up."""
        failures = 0
        seconds = self._timeout_seconds
        while True:
            try:
                async with asyncio.timeout(seconds):
                    await self._start(instance)
            except TimeoutError:
                minutes = seconds / 60
                detail = (
                    f"; health: {instance.server.health_detail}.{instance.server.tail()}" if instance.server else "."
                )
                error = ModelServerError(f"The instance was not ready within {minutes:g} minutes{detail}")
                await self._stop(instance)
                self._give_up(instance, error)
                return
            except Exception as error:
                await self._stop(instance)
                failures += 1
                # The first start shows whether the package works at all; a later start may fail for a transient cause.
                if instance.generation == 0 or failures >= START_TRIES:
                    self._give_up(instance, as_server_error(error))
                    return
                await asyncio.sleep(failures)
                continue
            failures = 0
            if self._servers.sidecar_port is not None:
                seconds = max(seconds, BACK_SECONDS)
            server = instance.server
            assert server is not None
            await server.command_ended()
            instance.generation += 1
            instance.ready.clear()
            self._listener.changed(self)
            given_up = instance.deaths.died()
            status = await server.ended()
            await self._stop(instance)
            if given_up:
                detail = (
                    f"The model server died {instance.deaths.total} times, the last times without one answer in "
                    f"between (status {status}), and is not started again.{server.tail()}"
                )
                self._give_up(instance, ModelServerError(detail))
                return

    def _kept(self, instance: Instance, keeper: asyncio.Task[None]) -> None:
        # Whatever ended the keeper, requests must not wait for its instance forever.
        if not keeper.cancelled() and (error := keeper.exception()) is not None:
            self._give_up(instance, as_server_error(error))

    async def _start(self, instance: Instance) -> None:
        servers = self._servers
        if servers.sidecar_port is not None:
            instance.server = await servers.sidecar(servers.sidecar_port)
            await instance.server.ready(servers.health)
            self._take_in(instance, instance.server.url)
            return
        launch = await servers.prepare()
        if instance.devices is None:
            instance.devices = await servers.devices()
        # The service's own choice of accelerators does not count: another instance may be using them.
        visible = device_variables(instance.devices.devices, device_kind())
        launch = replace(launch, environment={**launch.environment, **visible})
        instance.server = await Server.start(launch, servers.log_of(instance.number))
        await instance.server.ready(servers.health)
        self._take_in(instance, instance.server.url)

    def _take_in(self, instance: Instance, url: str) -> None:
        instance.client = self._servers.connect(url)
        instance.url = url
        instance.outage.restarted(time.monotonic())
        instance.ready.set()
        self.outages.watch()
        self._listener.changed(self)
        self._first_ready.set()
        self._wake()

    async def _stop(self, instance: Instance) -> None:
        instance.ready.clear()
        if instance.client is not None:
            client, instance.client = instance.client, None
            await client.close()
        if instance.server is not None:
            await instance.server.stop()

    def give_up(self, error: ModelServerError) -> None:
        """Give up all instances, for this reason."""
        for instance in self.instances:
            if instance.given_up is None:
                self._give_up(instance, error)

    def _give_up(self, instance: Instance, error: ModelServerError) -> None:
        error = ModelServerError(self._servers.masker.block(str(error)))
        instance.given_up = error
        self._listener.changed(self)
        instance.ready.set()  # a request that waits for this instance alone must see the error
        self._wake()
        if all(other.given_up for other in self.instances):
            self._lost = error
            self._first_ready.set()
            self._waiting.end(error)

    def _freest(self) -> Instance | None:
        best: Instance | None = None
        most = 0
        for instance in self.instances:
            if instance.free > most and instance.given_up is None:
                best, most = instance, instance.free
        return best

    async def acquire(self, *, urgent: bool = False, again: bool = False) -> Instance:
        """Wait for a place at the least busy instance and take it; an ``urgent`` request goes to the head of the queue.

        A request that was sent before comes ``again``. Raises ModelServerError if no instance is left, or the run is
        stopped.
        """
        if self._lost is not None:
            raise self._lost
        self._raise_if_stopped()
        if not self._waiting and (instance := self._freest()) is not None:
            instance.take()
            return instance
        turn = self._waiting.add(urgent=urgent, again=again)
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.release(turn.result())
            raise

    async def acquire_alone(self, instance: Instance) -> Instance:
        """Wait until this instance has no request in flight, and take it for a suspect, which must be counted already.

        Raises ModelServerError if the instance is given up while the suspect waits, or its outage lasts too long, or
        the run is stopped.
        """
        await instance.alone.acquire()
        try:
            while not instance.takes_one_alone and not instance.keeps_none_waiting:
                self._raise_if_stopped()
                instance.turn = asyncio.get_running_loop().create_future()
                await instance.turn
            if instance.given_up is not None:
                raise instance.given_up
            if not instance.takes_one_alone:
                raise ModelServerError(f"The model server {redact(instance.url)} is away.")
            instance.take()
            return instance
        except BaseException:
            instance.alone.release()
            raise

    def release(self, instance: Instance, *, alone: bool = False) -> None:
        """Give back a place."""
        instance.in_flight -= 1
        if alone:
            instance.alone.release()
        if instance.recovery is not None:
            instance.recovery.go_on()
        self._wake()

    def suspect(self, instance: Instance) -> None:
        """Count a request that was in flight when the instance died: it is retried alone before others go on."""
        instance.suspects += 1

    def clear_suspect(self, instance: Instance) -> None:
        """Count a suspect as retried."""
        instance.suspects -= 1
        self._wake()

    def _look_again(self) -> None:
        self._listener.changed(self)
        self._wake()

    def _raise_if_stopped(self) -> None:
        if self._stopped:
            raise _stopped()

    def end_waiting(self) -> None:
        """Fail every request that waits for an instance, and every later one: the run is stopped."""
        self._stopped = True
        self._waiting.end(_stopped())
        for turn in [one.turn for one in self.instances if one.turn and not one.turn.done()]:
            turn.set_exception(_stopped())

    def _wake(self) -> None:
        for one in self.instances:
            if (turn := one.turn) is not None and (one.takes_one_alone or one.keeps_none_waiting):
                one.turn = None
                if not turn.done():
                    turn.set_result(None)
        while self._waiting:
            instance = self._freest()
            if instance is None:
                return
            self._waiting.give(instance)

    async def settle(self) -> None:
        """Wait until every answer received so far is settled or doubted."""
        clients = [instance.client for instance in self.instances if instance.client is not None]
        await asyncio.gather(*(client.connections.settle() for client in clients))

    async def close(self) -> None:
        """Stop every instance; returns when no process is left."""
        await self.outages.close()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        await asyncio.gather(*(self._stop(instance) for instance in self.instances), return_exceptions=True)
        for instance in self.instances:
            if instance.devices is not None:
                instance.devices.close()


def _stopped() -> ModelServerError:
    return ModelServerError("The run is stopped.")
