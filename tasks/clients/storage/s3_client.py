"""obstore's client of one bucket, set up from its credentials: which they are, and where they come from."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from obstore.store import S3Store

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.odd_keys import plain
from tasks.domain.credentials import Credentials, meant_by

_ENDPOINT = re.compile(r"https?://[\w.:%\[\]-]+(/[\w.~%/:@-]*)?", re.ASCII | re.IGNORECASE)


def credentials_of(scheme: str, given: Mapping[str, Credentials]) -> Credentials:
    """The credentials for ``s3`` or ``obs`` addresses, from those given and the environment. Raises ObjectError."""
    has_profile = os.path.exists(os.path.expanduser("~/.aws/credentials"))
    try:
        return meant_by(scheme, given, os.environ, has_profile=has_profile)
    except ValueError as error:
        raise ObjectError(str(error)) from None


def made_store(name: str, credentials: Credentials, timeout_seconds: float, retry_seconds: float) -> S3Store:
    """The client of a bucket; transient failures are retried for ``retry_seconds``. Raises ObjectError."""
    if odd := credentials.odd_field:
        raise ObjectError(
            f"The storage's {odd} has a character that no request can carry, such as a blank or a line break."
        )
    endpoint = credentials.endpoint_url
    if endpoint and not _is_address(endpoint):
        raise ObjectError(f"The storage's endpoint {endpoint!r} should be http(s)://host[:port].")
    options: dict[str, Any] = {"virtual_hosted_style_request": credentials.virtual_hosted}
    if endpoint:
        # obstore uses a virtual-hosted endpoint as given, so the bucket is added to the host name here.
        options["endpoint"] = endpoint.replace("://", f"://{name}.", 1) if credentials.virtual_hosted else endpoint
    if credentials.anonymous:
        options["skip_signature"] = True
    elif credentials.access_key_id:
        options["access_key_id"] = credentials.access_key_id
        options["secret_access_key"] = plain(credentials.secret_access_key) or ""
        if token := plain(credentials.session_token):
            options["session_token"] = token
    else:
        options["credential_provider"] = _found_credentials()
    try:
        return S3Store(
            name,
            region=credentials.region or "us-east-1",
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "timeout": f"{timeout_seconds:g}s",
                "connect_timeout": "10s",
                "pool_idle_timeout": "30s",
            },
            retry_config={
                # Time is the limit; how many attempts fit into it is random, since the pauses have jitter.
                "max_retries": 1000,
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=4),
                    "base": 2,
                },
                "retry_timeout": timedelta(seconds=retry_seconds),
            },
            **options,
        )
    except Exception as error:
        raise ObjectError(f"The storage cannot be set up: {str(error).splitlines()[0][:200]}") from None


def _is_address(endpoint: str) -> bool:
    """Whether this is http(s)://host[:port], optionally with a path."""
    try:
        parts = urlsplit(endpoint)
        return _ENDPOINT.fullmatch(endpoint) is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:  # such as an invalid port
        return False


def _found_credentials() -> Any:
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
