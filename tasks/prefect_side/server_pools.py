"""Resource pools of a Prefect server: its work pools that were made from pool files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient
from pydantic import ValidationError

from tasks.domain.pool import Pool
from tasks.prefect_side.api import work_pools

POOL_KEY = "thresher"
"""The key of a work pool's base job template that holds the pool it was made from; Prefect keeps it untouched."""


def pool_of(base_job_template: Mapping[str, Any]) -> Pool | None:
    """The pool that a work pool was made from; None if the work pool is not Thresher's."""
    try:
        return Pool.model_validate(base_job_template[POOL_KEY])
    except (KeyError, ValidationError):
        return None


async def server_pools(client: PrefectClient) -> dict[str, Pool]:
    """The resource pools of a server, by name."""
    found = {one.name: pool_of(one.base_job_template) for one in await work_pools(client)}
    return {name: pool for name, pool in sorted(found.items()) if pool is not None}
