"""Prefect blocks resolved to values, only where a value is needed: storage keys and secrets of the environment."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from prefect.blocks.system import Secret

from tasks.domain.credentials import Credentials
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.headers import resolved_headers, secrets_of
from tasks.domain.instance import GivenEnvironment
from tasks.domain.secret_reference import SECRET_REFERENCE, resolved
from tasks.domain.service import BatchService
from tasks.domain.settings import Settings


async def storage_credentials(settings: Settings) -> dict[str, Credentials]:
    """Credentials from the administrator's Secret blocks, by scheme; the others come from the environment."""
    named = {"s3": settings.s3_credentials_block, "obs": settings.obs_credentials_block}
    found: dict[str, Credentials] = {}
    for scheme, block in named.items():
        if block is None:
            continue
        field = f"THRESHER_{scheme.upper()}_CREDENTIALS_BLOCK"
        value = (await _block(block, field)).get()
        if not isinstance(value, dict):
            expected = "the block should hold JSON with endpoint_url, access_key_id and secret_access_key"
            raise SpecificationError([Problem(field, block, expected)])
        found[scheme] = Credentials.model_validate({**value, "origin": f"the Secret block {block}"})
    return found


async def resolved_environment(service: BatchService) -> GivenEnvironment:
    """A service's environment and headers, with every ``{{ prefect.blocks.secret.NAME }}`` replaced by the block's
    value.

    Every value of a block is a secret, wherever it is used. Raises SpecificationError naming the missing blocks, and
    those whose value cannot be sent in a header.
    """
    values: dict[str, object] = {}
    problems: list[Problem] = []
    for field, texts in (("environment", service.environment), ("headers", service.headers)):
        for variable, text in texts.items():
            for name in SECRET_REFERENCE.findall(text):
                try:
                    if name not in values:
                        # Prefect parses a text as JSON where it can, which turns 1.10 into 1.1, and true into True.
                        values[name] = (await _block(name, f"{field}.{variable}")).value.get_secret_value()
                except SpecificationError as error:
                    problems += error.problems
    if problems:
        raise SpecificationError(problems)
    given = resolved(service.environment, values, service.secret_variables)
    headers = resolved_headers(service.headers, values)
    return replace(given, headers=headers, secrets=(*given.secrets, *secrets_of(headers)))


async def _block(name: str, field: str) -> Any:
    try:
        return await Secret.aload(name)
    except ValueError:
        raise SpecificationError([Problem(field, name, "there is no Prefect Secret block of this name")]) from None
