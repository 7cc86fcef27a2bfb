"""Starts a package once, as a run would start an instance of it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tasks.clients.instances.launcher import Server
from tasks.clients.processes.scratch_folders import remove_left_folders, scratch_folder
from tasks.domain.errors import ModelServerError
from tasks.domain.instance import Launch
from tasks.domain.package import Health

START_SECONDS = 20 * 60.0


@asynccontextmanager
async def started(launch: Launch, health: Health, seconds: float = START_SECONDS) -> AsyncIterator[Server]:
    """A healthy model server, ended with everything it started after the block.

    Raises ModelServerError, with its last output, if it ends or is not healthy in time.
    """
    remove_left_folders()
    scratch = scratch_folder()
    try:
        server = await Server.start(launch, scratch / "instance.log")
        try:
            try:
                async with asyncio.timeout(seconds):
                    await server.ready(health)
            except TimeoutError:
                detail = f"The model server was not healthy within {seconds:g} s ({server.health_detail})"
                raise ModelServerError(f"{detail}.{server.tail()}") from None
            yield server
        finally:
            await server.stop()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
