"""Endpoints of object stores: their credentials, and valid addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tasks.clients.storage.failures import ObjectError
from tasks.domain.credentials import Credentials, meant_by

_ENDPOINT = re.compile(r"https?://[\w.:%\[\]-]+(/[\w.~%/:@-]*)?", re.ASCII | re.IGNORECASE)


def is_address(endpoint: str) -> bool:
    """Whether this is http(s)://host[:port], optionally with a path."""
    try:
        parts = urlsplit(endpoint)
        return _ENDPOINT.fullmatch(endpoint) is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as an invalid port
        return False


def credentials_of(scheme: str, given: Mapping[str, Credentials]) -> Credentials:
    """The credentials for ``s3`` or ``obs`` addresses, from those given and the environment. Raises ObjectError."""
    has_profile = os.path.exists(os.path.expanduser("~/.aws/credentials"))
    try:
        return meant_by(scheme, given, os.environ, has_profile=has_profile)
    except ValueError as error:
        raise ObjectError(str(error)) from None


def found_credentials() -> Any:
    """Credentials from outside the environment: a profile, single sign-on, the role of the machine or pod.

    botocore supports all of these, and gives up after a second if it finds no credentials. Raises ObjectError then.
    """
    import botocore.exceptions  # needed only without keys
    import botocore.session

    try:
        credentials = botocore.session.get_session().get_credentials()
    except botocore.exceptions.BotoCoreError as error:
        raise ObjectError(f"The keys of this storage cannot be found: {error}.") from None
    if credentials is None:
        raise ObjectError(
            "There are no keys for this storage: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (OBS_... for obs://), "
            "or have the administrator name a Prefect Secret block."
        )

    def provide() -> dict[str, Any]:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": getattr(credentials, "_expiry_time", None),
        }

    return provide
