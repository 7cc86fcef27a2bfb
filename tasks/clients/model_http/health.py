"""Whether a model server is healthy: one GET to its health address."""

from __future__ import annotations

from collections.abc import Mapping

from tasks.clients.model_http.model_server import ModelClient, RequestFailed
from tasks.domain.paths import redact
from tasks.domain.plain_text import plain_line
from tasks.domain.request import NO_BODY

MOST_BYTES = 1 << 20
"""Health responses are not read beyond this size."""
NOT_ALLOWED = ("HTTP 401", "HTTP 403")
"""Answers of a server that wants other credentials."""
PLACE_SHOWN = 200
"""Characters shown of a redirect's target."""


async def ask_health(url: str, path: str, timeout_seconds: float, headers: Mapping[str, str] | None = None) -> str:
    """Ask the server at ``url`` for its health; empty if healthy, else the reason. Redirects are not followed."""
    try:
        client = ModelClient(url, "GET", path, timeout_seconds, MOST_BYTES, headers=headers)
    except ValueError:
        return f"{path} is no path"
    try:
        await client.predict(NO_BODY)
        return ""
    except RequestFailed as failed:
        status = failed.failure.status or 0
        if failed.answer is not None and failed.answer.location and 300 <= status < 400:
            place = redact(plain_line(failed.answer.location)[:PLACE_SHOWN])
            return f"{failed.cause} to {place}, and redirects are not followed"
        if failed.failure.kind == "unusable":
            return "" if 200 <= status < 300 else f"HTTP {status}"
        return failed.cause
    finally:
        await client.close()
