"""Prefect work pools: created or updated."""

from __future__ import annotations

from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from tasks.domain.errors import Problem, SpecificationError


async def put_work_pool(
    client: PrefectClient, name: str, kind: str, description: str, template: dict[str, Any], limit: int | None
) -> None:
    """Create a work pool, or update the existing one. Raises SpecificationError if that is of another kind."""
    fields = {"description": description, "base_job_template": template, "concurrency_limit": limit}
    try:
        there = await client.read_work_pool(name)
    except ObjectNotFound:
        await client.create_work_pool(WorkPoolCreate(name=name, type=kind, **fields))
        return
    if there.type != kind:
        expected = f"is {there.type} on the server and cannot be changed: delete that work pool, or rename this pool"
        raise SpecificationError([Problem(f"{name}: kind", kind, expected)])
    await client.update_work_pool(name, WorkPoolUpdate(**fields))
