"""A lock on the Prefect server that allows one deployment at a time; a lease frees it if its holder dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError

from tasks.domain.errors import ServerError

LOCK = "thresher-deploy"
LOCK_SECONDS = 60.0
"""How long a deployment may take and others wait; the lease of a holder that died has expired by then."""
_POLL_SECONDS = 0.2
_LOCKED = 423


@asynccontextmanager
async def one_at_a_time(client: PrefectClient) -> AsyncIterator[None]:
    """Hold the lock: Prefect overwrites a deployment of the same name, so two deployments must not race.

    Prefect's own ``concurrency`` requests slots in a separate thread, which keeps to the first server that this process
    used; this uses the server of ``client``. Raises ServerError after waiting for LOCK_SECONDS.
    """
    with suppress(ObjectAlreadyExists):  # a race of two deployments on a new server
        await client.upsert_global_concurrency_limit_by_name(LOCK, 1)
    lease = await _acquire(client)
    try:
        yield
    finally:
        await asyncio.shield(client.release_concurrency_slots_with_lease(lease))


async def _acquire(client: PrefectClient) -> UUID:
    deadline = asyncio.get_running_loop().time() + LOCK_SECONDS
    while True:
        try:
            answer = await client.increment_concurrency_slots_with_lease([LOCK], 1, "concurrency", LOCK_SECONDS)
            return UUID(answer.json()["lease_id"])
        except PrefectHTTPStatusError as error:
            if error.response.status_code != _LOCKED:
                raise
        if asyncio.get_running_loop().time() > deadline:
            raise ServerError(f"Other services are being deployed for more than {LOCK_SECONDS:g} s; try again.")
        await asyncio.sleep(_POLL_SECONDS)
