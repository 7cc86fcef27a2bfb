"""What the tests of the engine share: groups of real model server processes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import requests
from clients.support import FAKE_MODEL_SERVER, alive
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.instances.running_server import RunningServer
from tasks.clients.model_http.model_server import ModelClient
from tasks.clients.processes.devices import DeviceLease
from tasks.domain.instance import Launch
from tasks.domain.masking import Masker
from tasks.domain.package import Health
from tasks.domain.request import Body
from tasks.domain.result import Tally
from tasks.engine.instances import Instance, InstanceGroup
from tasks.engine.sender import Sender
from tasks.engine.sent import Sent
from tasks.engine.servers import ModelServers

HEALTH = Health(period_seconds=0.5)


def fake_launch(folder: Path, *options: str) -> Launch:
    """How the fake model server is started."""
    environment = {"PATH": os.environ["PATH"], "MARK": str(folder)}
    return Launch((sys.executable, str(FAKE_MODEL_SERVER), *options), folder, environment)


class GivenServers(ModelServers):
    """Model servers as a test gives them: started by ``launch``, or running at the addresses of ``running_url``."""

    def __init__(
        self, folder: Path, launch: Callable[[], Awaitable[Launch]], running_url: str | None = None,
        request_seconds: float = DEADLINE_SECONDS,
    ) -> None:  # fmt: skip
        self.health, self.sidecar_port, self.masker = HEALTH, None, Masker()
        self.run_already = running_url is not None
        self._addresses = (running_url or "").split()
        self._folder, self._own_launch, self._request_seconds = folder, launch, request_seconds

    async def prepare(self) -> Launch:
        return await self._own_launch()

    async def running(self) -> list[RunningServer]:
        return [RunningServer(address, HEALTH) for address in self._addresses]

    async def devices(self) -> DeviceLease:
        return DeviceLease((), ())

    def log_of(self, instance: int) -> Path:
        return self._folder / f"instance-{instance}.log"

    def connect(self, url: str) -> ModelClient:
        return ModelClient(url, "POST", "/echo", self._request_seconds)


class Heard:
    """What a test wants to hear of a group's instances."""

    def __init__(
        self,
        on_health: Callable[[int], None] = lambda sick: None,
        on_outage: Callable[[str], None] = lambda cause: None,
    ) -> None:
        self._on_health, self._on_outage = on_health, on_outage

    def changed(self, group: InstanceGroup) -> None:
        self._on_health(group.sick)

    def absent(self, cause: str) -> None:
        pass

    def cannot_go_on(self, group: InstanceGroup, cause: str) -> None:
        self._on_outage(cause)


@asynccontextmanager
async def group_of(
    folder: Path, *options: str, count: int = 1, max_concurrency: int | None = None, timeout_seconds: float = 60,
    prepare: Callable[[], Awaitable[Launch]] | None = None, request_seconds: float = 120, start: bool = True,
    on_health: Callable[[int], None] = lambda sick: None, running_url: str | None = None, outage_seconds: float = 0,
    on_outage: Callable[[str], None] = lambda reason: None,
) -> AsyncIterator[InstanceGroup]:  # fmt: skip
    """A group of fake model servers, started and closed."""

    async def usual() -> Launch:
        return fake_launch(folder, *options)

    servers = GivenServers(folder, prepare or usual, running_url, request_seconds)
    group = InstanceGroup(
        range(count), servers, Heard(on_health, on_outage), timeout_seconds=timeout_seconds,
        max_concurrency=max_concurrency, outage_seconds=outage_seconds,
    )  # fmt: skip
    try:
        if start:
            await group.start()
        yield group
    finally:
        await group.close()


async def send_all(
    group: InstanceGroup, items: list[bytes], tally: Tally | None = None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep, stopped: Callable[[], str] = str,
) -> dict[bytes, bytes | str]:  # fmt: skip
    """Send all items at once; each one's answer, or the message of its error. ``pause`` waits between its tries."""
    sender, tally = Sender(group, stopped, pause=pause), tally or Tally()

    async def one(item: bytes) -> bytes | str:
        from tasks.domain.errors import AnswerError

        try:
            return (await sender.send(Body("application/json", (item,)), Sent(tally))).data
        except AnswerError as error:
            return str(error)

    return dict(zip(items, await asyncio.gather(*map(one, items)), strict=True))


async def all_ready(group: InstanceGroup) -> None:
    """Wait until every instance is ready."""
    for instance in group.instances:
        await instance.ready.wait()


async def stats(instance: Instance) -> dict[str, Any]:
    """What the model server counted since it was started."""
    assert instance.server is not None
    url = f"{instance.server.url}/stats"
    return await asyncio.to_thread(lambda: requests.get(url, timeout=DEADLINE_SECONDS).json())


def model_pid(instance: Instance) -> int:
    """The model server's own process."""
    assert instance.server is not None
    warden = instance.server._process.pid
    children = Path(f"/proc/{warden}/task/{warden}/children").read_text().split()
    return next(int(pid) for pid in children if alive(int(pid)))
