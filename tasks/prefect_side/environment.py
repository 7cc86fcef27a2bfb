"""What Prefect is given by environment variables. Does not import Prefect, which reads them when it is imported."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_NO_ANALYTICS = {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
# Runs without a heartbeat for a while are set to Crashed, and may be resumed.
_HEARTBEAT = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
FLOW_ENVIRONMENT = _HEARTBEAT | _NO_ANALYTICS
"""The runs of a resource pool."""
# To check whether its block types are registered, a server imports all of Prefect's integrations, including the clients
# of Docker and Kubernetes: one second and 70 MB. Registering them all at each start takes less.
_BLOCK_TYPES_UNCHECKED = {"PREFECT_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false"}


def _default(**variables: str) -> None:
    for name, value in variables.items():
        os.environ.setdefault(name, value)


def set_for_command() -> None:
    """For a command that uses a server: Prefect's own log has only errors, unless the user has set its level."""
    _default(PREFECT_LOGGING_LEVEL="ERROR")


def set_for_run(*, verbose: bool) -> None:
    """For a run in this process, on an embedded server or on that of ``PREFECT_API_URL``."""
    from tasks.prefect_side.stack_access import password_for  # `--help` does not need it

    _default(
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
        PREFECT_LOGGING_LEVEL="INFO" if verbose else "CRITICAL",
        PREFECT_LOGGING_INTERNAL_LEVEL="ERROR" if verbose else "CRITICAL",
        **_HEARTBEAT,
    )
    if (url := os.environ.get("PREFECT_API_URL", "")) and (password := password_for(url)):
        _default(PREFECT_API_AUTH_STRING=password)  # the address of `thresher up`, set by hand


def set_for_embedding() -> None:
    """For a process that may start an embedded server."""
    _default(**_NO_ANALYTICS)


def of_embedded_server(settings: Mapping[str, str], password: str, origin: str) -> dict[str, str]:
    """An embedded server, with the ``settings`` of its process.

    It has no block types: they are for forms in the user interface, which it lacks; a saved block brings its own type.
    """
    return {
        **os.environ,
        "PREFECT_UI_ENABLED": "0",
        "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        **_BLOCK_TYPES_UNCHECKED,
        **settings,
        **_access(password, origin),
    }


def of_the_server(folder: Path, url: str, password: str, database: str) -> dict[str, str]:
    """The server of a local stack."""
    return {
        **of_a_worker(folder, url, password),
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_UI_API_URL": url,
        **_BLOCK_TYPES_UNCHECKED,
        **_access(password, url.removesuffix("/api")),
    }


def _access(password: str, origin: str) -> dict[str, str]:
    return {"PREFECT_SERVER_API_AUTH_STRING": password, "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": origin}


def of_a_worker(folder: Path, url: str, password: str) -> dict[str, str]:
    """A client of a local stack's server, and its child processes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_API_AUTH_STRING": password,
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        **_NO_ANALYTICS,
    }
