"""Whether a model server is healthy: one GET to its health address."""

from __future__ import annotations

from tasks.clients.model_server import ModelClient, RequestFailed
from tasks.domain.request import NO_BODY

MOST_BYTES = 1 << 20
"""What a server says of its health is not read any further."""


async def ask_health(url: str, path: str, timeout_seconds: float) -> str:
    """Ask the server at ``url`` for its health; empty if healthy, else what was wrong. No redirect is followed."""
    try:
        client = ModelClient(url, "GET", path, timeout_seconds, MOST_BYTES)
    except ValueError:
        return f"{path} is no path"
    try:
        await client.predict(NO_BODY)
        return ""
    except RequestFailed as failed:
        status = failed.failure.status or 0
        if failed.failure.kind == "unusable":
            return "" if 200 <= status < 300 else f"HTTP {status}"
        return failed.cause
    finally:
        await client.close()
