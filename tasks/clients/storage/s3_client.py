"""obstore's client of one bucket, set up from its credentials."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from obstore.store import S3Store

from tasks.clients.storage.endpoints import found_credentials, is_address
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.odd_keys import plain
from tasks.domain.credentials import Credentials


def made_store(name: str, credentials: Credentials, timeout_seconds: float, retry_seconds: float) -> S3Store:
    """The client of a bucket; transient failures are retried for ``retry_seconds``. Raises ObjectError."""
    if odd := credentials.odd_field:
        raise ObjectError(
            f"The storage's {odd} has a character that no request can carry, such as a blank or a line break."
        )
    endpoint = credentials.endpoint_url
    if endpoint and not is_address(endpoint):
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
        options["credential_provider"] = found_credentials()
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
