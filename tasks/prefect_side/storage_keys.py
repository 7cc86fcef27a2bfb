"""Storage credentials for commands that do not run a flow."""

from __future__ import annotations

from tasks.domain.credentials import Credentials
from tasks.domain.errors import CallError, Problem, ServerError
from tasks.domain.settings import Settings
from tasks.domain.unexpected import in_one_line
from tasks.prefect_side.environment import set_for_command, set_for_embedding
from tasks.prefect_side.prefect_import import import_prefect


def keys_in_blocks(settings: Settings) -> bool:
    """Whether the administrator keeps keys in Prefect blocks."""
    return settings.s3_credentials_block is not None or settings.obs_credentials_block is not None


async def storage_keys(settings: Settings) -> dict[str, Credentials]:
    """Credentials from the administrator's Prefect blocks, if any are named; the others come from the environment."""
    if not keys_in_blocks(settings):
        return {}
    set_for_command()
    set_for_embedding()
    import_prefect()
    import httpx
    from prefect.settings import PREFECT_API_URL

    from tasks.prefect_side.blocks import storage_credentials  # imports Prefect, which takes a second
    from tasks.prefect_side.server import prefect_server

    try:
        if not PREFECT_API_URL.value():
            return await storage_credentials(settings)
        async with prefect_server():
            return await storage_credentials(settings)
    except (ServerError, RuntimeError, httpx.HTTPError) as error:
        why = str(error)
        if not isinstance(error, ServerError):
            detail = in_one_line(error)[0]
            why = f"Prefect's embedded server does not answer: {detail} PREFECT_API_URL names another server."
        scheme = "OBS" if settings.s3_credentials_block is None else "S3"
        block = settings.s3_credentials_block or settings.obs_credentials_block
        wrong = Problem(f"THRESHER_{scheme}_CREDENTIALS_BLOCK", block, f"the block cannot be read. {why}")
        raise CallError([wrong]) from None
