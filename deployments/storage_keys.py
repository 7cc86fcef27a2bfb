"""Storage credentials for commands that do not run a flow."""

from __future__ import annotations

import os

from deployments.prefect_import import import_prefect
from tasks.domain.credentials import Credentials
from tasks.settings import Settings


def keys_in_blocks(settings: Settings) -> bool:
    """Whether the administrator keeps keys in Prefect blocks."""
    return settings.s3_credentials_block is not None or settings.obs_credentials_block is not None


async def storage_keys(settings: Settings) -> dict[str, Credentials]:
    """Credentials from the administrator's Prefect blocks, if any are named; the others come from the environment."""
    if not keys_in_blocks(settings):
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
