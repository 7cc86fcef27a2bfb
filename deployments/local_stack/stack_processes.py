"""The processes of a local stack: its server, and Prefect's own workers, each with a log in the stack's folder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from tasks.clients.processes.lifeline import GuardedProcess

_TAIL_LINES = 15


@asynccontextmanager
async def guarded(
    name: str, command: tuple[str, ...], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[GuardedProcess]:
    """A module run by this Python with arguments. It ends with the block or with this process, however that ends."""
    log = folder / f"{name}.log"
    log.write_bytes(b"")
    module, *arguments = command
    process = await GuardedProcess.start_own(module, arguments, folder=folder, environment=environment, log=log)
    try:
        yield process
    finally:
        await asyncio.shield(process.stop())


def tail(log: Path) -> str:
    """The last lines of a log, as the end of a message."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    except OSError:
        lines = []
    return "".join(f"\n    {line}" for line in ["Its log says last:", *lines]) if lines else ""
