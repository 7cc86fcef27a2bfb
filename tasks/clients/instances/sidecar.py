"""A model server that Kubernetes starts, on a port of this machine: the model's image, next to us in one pod."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from tasks.clients.model_http.health import ask_health
from tasks.clients.processes.ports import HOST
from tasks.domain.package import Health

BACK_SECONDS = 900.0
"""Minimum wait for the return of one that has died: the kubelet pauses up to five minutes between two starts."""
_FIRST_PERIOD_SECONDS = 0.05
_LOOK_SECONDS = 1.0
_CONNECT_SECONDS = 5.0


class Sidecar:
    """One life of the model server at a port, like :class:`~tasks.clients.instances.launcher.Server` for a process.

    It has ended when nothing listens on its port any longer. Only a refused connection shows that: a server that is
    busy, or that closes connections, is still there.
    """

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._port = port
        self._headers = headers
        self._over = asyncio.Event()
        self.health_detail = "not asked yet"

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self._port}"

    async def ask(self, health: Health) -> str:
        """Ask for its health once; empty if healthy, else the reason."""
        return await ask_health(self.url, health.url, health.timeout_seconds, self._headers)

    async def ready(self, health: Health) -> None:
        """Wait until the server is healthy. Its image may be downloaded first, so only the caller limits the time."""
        period = _FIRST_PERIOD_SECONDS
        while self.health_detail:
            await asyncio.sleep(period)
            self.health_detail = await self.ask(health)
            period = min(period * 1.3, health.period_seconds)

    @property
    def running(self) -> bool:
        """Whether it was running when last checked."""
        return not self._over.is_set()

    async def command_ended(self) -> None:
        """Wait until it has ended; checked at once, then at increasing intervals of up to a second."""
        period = _FIRST_PERIOD_SECONDS
        while not self._over.is_set():
            if await self._refused():
                self._over.set()
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await self._over.wait()
            period = min(period * 1.3, _LOOK_SECONDS)

    async def _refused(self) -> bool:
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, writer = await asyncio.open_connection(HOST, self._port)
        except ConnectionRefusedError:
            return True
        except (OSError, TimeoutError):
            return False
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return False

    async def ended(self) -> str:
        """Wait until it has ended; its exit status, for a message."""
        await self.command_ended()
        return "unknown, see the container"

    async def stop(self) -> None:
        """Do nothing: it is not ours, and ends with its pod."""

    def tail(self) -> str:
        """Where to find its output, as the end of a message."""
        return " What it printed is in the log of the container `model` of its pod."
