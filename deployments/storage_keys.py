"""Storage credentials for commands that do not run a flow."""

from __future__ import annotations

import os

from deployments.startup import import_prefect
from tasks.domain.credentials import Credentials
from tasks.settings import Settings


async def storage_keys(settings: Settings) -> dict[str, Credentials]:
    """Credentials from the administrator's Prefect blocks, if any are named; the others come from the environment."""
    if settings.s3_credentials_block is None and settings.obs_credentials_block is None:
        return {}
    for name, value in (
        ("PREFECT_LOGGING_LEVEL", "ERROR"),
        ("PREFECT_SERVER_ANALYTICS_ENABLED", "false"),
        ("DO_NOT_TRACK", "1"),
    ):
        os.environ.setdefault(name, value)
    import_prefect()
    from tasks.blocks import storage_credentials  # imports Prefect, which takes a second

    return await storage_credentials(settings)
