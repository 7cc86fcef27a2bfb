"""The processes of a local stack: its server, and Prefect's own workers, each with a log in the stack's folder."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from deployments.local_stack.sqlite_cursors import sqlite_url
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


def of_the_server(folder: Path, url: str, password: str) -> dict[str, str]:
    """The environment of the stack's server."""
    home = folder / "prefect"
    return of_a_worker(folder, url, password) | {
        "PREFECT_API_DATABASE_CONNECTION_URL": sqlite_url(home / "prefect.db"),
        "PREFECT_UI_API_URL": url,
        # Register block types at each start: to check whether that is needed, the server would import the clients of
        # Docker and Kubernetes, which takes longer, and 70 MB.
        "PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
        "PREFECT_SERVER_API_AUTH_STRING": password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url.removesuffix("/api"),
    }


def of_a_worker(folder: Path, url: str, password: str) -> dict[str, str]:
    """The environment of a client of the stack's server, and of its child processes."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return own | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": password,
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
