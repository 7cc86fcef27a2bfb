"""Resource pools of a Prefect server: its work pools that were made from pool files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect.client.orchestration import PrefectClient
from pydantic import ValidationError

from tasks.domain.pool import Pool

POOL_KEY = "thresher"
"""The key of a work pool's base job template that holds the pool it was made from; Prefect keeps it untouched."""
_PAGE = 200


def pool_of(base_job_template: Mapping[str, Any]) -> Pool | None:
    """The pool that a work pool was made from; None if the work pool is not Thresher's."""
    try:
        return Pool.model_validate(base_job_template[POOL_KEY])
    except (KeyError, ValidationError):
        return None


async def server_pools(client: PrefectClient) -> dict[str, Pool]:
    """The resource pools of a server, by name."""
    found: dict[str, Pool] = {}
    offset = 0
    page = None
    while page is None or len(page) == _PAGE:
        page = await client.read_work_pools(limit=_PAGE, offset=offset)
        offset += len(page)
        for work_pool in page:
            if (pool := pool_of(work_pool.base_job_template)) is not None:
                found[work_pool.name] = pool
    return dict(sorted(found.items()))
