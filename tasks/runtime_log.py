"""Runtime log output stays on: whoever reads the log store must be able to rely on it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import DeploymentUpdate

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.service import BatchService

KEPT_TAG = "runtime-log-output"
"""Tag of a service for which runtime log output was on once; it outlives whatever is edited in the form."""


def check_kept(tags: Collection[str], fields: Mapping[str, Any]) -> list[Problem]:
    """A problem if runtime log output is set back for a service with these tags."""
    if KEPT_TAG not in tags or fields.get("runtime_log_output"):
        return []
    expected = "was true for this service and cannot be set back: deploy another service without it"
    return [Problem("runtime_log_output", False, expected)]


async def keep(service: BatchService) -> None:
    """Remember that runtime log output is on, if it is. Raises SpecificationError if it was, and is set back."""
    if (deployment_id := runtime.deployment.id) is None:
        return
    async with get_client() as client:
        deployment = await client.read_deployment(deployment_id)
        if problems := check_kept(deployment.tags, service.model_dump()):
            raise SpecificationError(problems)
        if service.runtime_log_output and KEPT_TAG not in deployment.tags:
            await client.update_deployment(deployment.id, DeploymentUpdate(tags=[*deployment.tags, KEPT_TAG]))
