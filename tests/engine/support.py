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
from tasks.domain.instance import Launch
from tasks.domain.package import Health
from tasks.domain.request import Body
from tasks.domain.result import Tally
from tasks.engine.instances import Instance, InstanceGroup
from tasks.engine.sender import Sender
from tasks.engine.sent import Sent

HEALTH = Health(period_seconds=0.5)


def fake_launch(folder: Path, *options: str) -> Launch:
    """How the fake model server is started."""
    environment = {"PATH": os.environ["PATH"], "MARK": str(folder)}
    return Launch((sys.executable, str(FAKE_MODEL_SERVER), *options), folder, environment)


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

    group = InstanceGroup(
        count, prepare=prepare or usual, connect=lambda url: ModelClient(url, "POST", "/echo", request_seconds),
        health=HEALTH, timeout_seconds=timeout_seconds, folder=lambda: folder, max_concurrency=max_concurrency,
        on_health=on_health, running=None if running_url is None else running(*running_url.split()),
        outage_seconds=outage_seconds, on_outage=on_outage,
    )  # fmt: skip
    try:
        if start:
            await group.start()
        yield group
    finally:
        await group.close()


def running(*addresses: str) -> Callable[[], Awaitable[list[RunningServer]]]:
    """Servers that run already, as a group is told of them."""

    async def servers() -> list[RunningServer]:
        return [RunningServer(address, HEALTH) for address in addresses]

    return servers


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
