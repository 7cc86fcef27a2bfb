"""The resource pools that a service may name: those of its Prefect server, and those of the pool files.

The server is determined without importing Prefect, which takes two seconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.clients.pool_files import read_pools
from tasks.clients.surroundings.prefect_files import given_settings
from tasks.clients.surroundings.startup import importing
from tasks.domain.errors import Problem, ServerError, SpecificationError
from tasks.domain.pool import Pool
from tasks.domain.prefect_settings import SERVER, first_of
from tasks.domain.service import BatchService
from tasks.domain.settings import Settings
from tasks.prefect_side.stack_access import stack_address


def names_server() -> bool:
    """Whether Prefect's settings name a server: in the environment, a file of the current folder, or the profiles."""
    if address := first_of(given_settings(os.environ)[0], SERVER):
        return bool(address.value)
    home = Path(os.environ.get("PREFECT_HOME") or "~/.prefect").expanduser()
    try:
        return "PREFECT_API_URL" in Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml").read_text()
    except (OSError, ValueError):
        return False


async def pools_to_run_in(fields: Mapping[str, Any], settings: Settings) -> Mapping[str, Pool] | None:
    """The pools that a run in this process may name: those of the files, and for any other name also the server's.

    None if the files are invalid; the check of the service reports that with the other problems.
    """
    there = _of_files(settings)
    if there is None or _name(fields) in there or not names_server():
        return there
    found, refusal = await _of_server()
    if refusal:
        raise _not_asked(_name(fields), settings, refusal)
    return dict(sorted({**found, **there}.items()))


async def pools_to_deploy_in(
    fields: Mapping[str, Any], settings: Settings
) -> tuple[Mapping[str, Pool] | None, list[str]]:
    """The pools of the server that a service would be deployed on, those that only the files have, and warnings.

    The server is the one that is named, or that of ``thresher up``. The pools are None if no server answers and the
    files are invalid; the check of the service reports that with the other problems.
    """
    there = _of_files(settings)
    if not (names_server() or stack_address()):
        return there, []
    found, refusal = await _of_server()
    if refusal and there is not None and _name(fields) not in there:
        raise _not_asked(_name(fields), settings, refusal)
    if refusal:
        return there, [f"resource pools are those of {settings.pools}, and perhaps others when deployed: {refusal}"]
    there, name, warnings = there or {}, _name(fields), []
    if name in there and name not in found:
        warnings = [
            f"resource_pool {name} is in the files of {settings.pools}, but not on the Prefect server: `thresher pools "
            "apply` puts it there, before the service is deployed"
        ]
    return dict(sorted({**there, **found}.items())), warnings


def _not_asked(name: str, settings: Settings, refusal: str) -> SpecificationError:
    expected = f"is not in the files of {settings.pools}, and the Prefect server could not be asked: {refusal}"
    return SpecificationError([Problem("resource_pool", name, expected)])


def _of_files(settings: Settings) -> dict[str, Pool] | None:
    try:
        return read_pools(settings.pools)
    except SpecificationError:
        return None


def _name(fields: Mapping[str, Any]) -> str:
    return str(fields.get("resource_pool", BatchService.model_fields["resource_pool"].default))


async def _of_server() -> tuple[dict[str, Pool], str]:
    """The pools of the server, and why they are not known (else empty)."""
    with importing():
        from tasks.prefect_side.api import server_pools
        from tasks.prefect_side.server import prefect_server
    try:
        async with prefect_server() as client:
            return await server_pools(client), ""
    except ServerError as error:
        return {}, str(error)
