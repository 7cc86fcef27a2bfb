"""The processes of a local stack: Prefect's own commands, each with its log in the stack's folder."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deployments.sqlite_cursors import sqlite_url
from tasks.clients.lifeline import GuardedProcess

_TAIL_LINES = 15


@asynccontextmanager
async def guarded(name: str, arguments: tuple[str, ...], folder: Path, url: str) -> AsyncIterator[GuardedProcess]:
    """One of Prefect's own commands, which ends with the block, or with this process however that ends."""
    log = folder / f"{name}.log"
    log.write_bytes(b"")
    command = (sys.executable, "-m", "prefect", *arguments)
    process = await GuardedProcess.start(command, folder=folder, environment=_environment(folder, url), log=log)
    try:
        yield process
    finally:
        await asyncio.shield(process.stop())


def _environment(folder: Path, url: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    home = folder / "prefect"
    return own | {
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": sqlite_url(home / "prefect.db"),
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


def tail(log: Path) -> str:
    """The last lines of a log, as the end of a message."""
    try:
        lines = log.read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    except OSError:
        lines = []
    return "".join(f"\n    {line}" for line in ["Its log says last:", *lines]) if lines else ""
