"""Endpoints and keys of object stores."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import AliasChoices, BaseModel, Field, SecretStr, field_validator

_REGION = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.IGNORECASE)
"""It becomes part of host names."""


class Credentials(BaseModel, frozen=True, extra="ignore", populate_by_name=True):
    """Endpoint and keys of one object store; a field of None is left to its usual lookup (profile, role)."""

    endpoint_url: str | None = Field(default=None, validation_alias=AliasChoices("endpoint_url", "endpoint"))
    access_key_id: str | None = Field(
        default=None, validation_alias=AliasChoices("access_key_id", "aws_access_key_id", "key")
    )
    secret_access_key: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("secret_access_key", "aws_secret_access_key", "secret")
    )
    session_token: SecretStr | None = Field(
        default=None, validation_alias=AliasChoices("session_token", "aws_session_token", "token")
    )
    region: str | None = Field(default=None, validation_alias=AliasChoices("region", "region_name"))
    virtual_hosted: bool = Field(default=False, description="bucket in the host name instead of in the path")
    anonymous: bool = False
    origin: str = Field(default="", description="where the keys are set, for messages: a variable, a block")

    @field_validator("*", mode="before")
    @classmethod
    def _without_blanks(cls, value: Any) -> Any:
        """Strip values: secrets written by ``echo``, or read from files, end in a line break."""
        if isinstance(value, SecretStr):
            return SecretStr(value.get_secret_value().strip())
        return value.strip() if isinstance(value, str) else value

    @property
    def odd_field(self) -> str:
        """The field that holds a character which no request can carry; empty if all are fine."""
        if self.region and _REGION.fullmatch(self.region) is None:
            return "region"
        texts = {
            "access key": self.access_key_id, "region": self.region,
            "secret key": self.secret_access_key and self.secret_access_key.get_secret_value(),
            "session token": self.session_token and self.session_token.get_secret_value(),
        }  # fmt: skip
        return next((name for name, text in texts.items() if text and not (text.isascii() and text.isprintable())), "")

    @property
    def shown_key(self) -> str:
        """The beginning of the access key, and where it is set; empty without a key."""
        if not self.access_key_id:
            return ""
        return f"access key {self.access_key_id[:4]}..." + (f" of {self.origin}" if self.origin else "")

    @property
    def secrets(self) -> list[str]:
        """The values that must not be shown."""
        hidden = [one.get_secret_value() for one in (self.secret_access_key, self.session_token) if one is not None]
        return [*hidden, *([self.access_key_id] if self.access_key_id else [])]


_AWS = (
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3", "AWS_SKIP_SIGNATURE", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_SHARED_CREDENTIALS_FILE",
)  # fmt: skip
"""Variables that set keys or an endpoint of S3."""


def meant_by(
    scheme: str, given: Mapping[str, Credentials], environment: Mapping[str, str], *, has_profile: bool = False
) -> Credentials:
    """The credentials for addresses of ``s3`` or ``obs``: those ``given`` for it, else those of the environment.

    If only OBS is set up, ``s3://`` also means OBS, as in its own manifests. ``has_profile``: the user's home folder
    has keys of S3. Raises ValueError if OBS has neither an endpoint nor a region.
    """
    meant = scheme
    if scheme == "s3" and scheme not in given and not has_profile:
        own = "obs" in given or (environment.get("OBS_ACCESS_KEY_ID") or "").strip()
        if own and not any((environment.get(name) or "").strip() for name in _AWS):
            meant = "obs"
    found = given.get(meant) or from_environment(meant, environment)
    if meant == "s3" or found.endpoint_url:
        return found
    if found.region and _REGION.fullmatch(found.region):
        return found.model_copy(update={"endpoint_url": f"https://obs.{found.region}.myhuaweicloud.com"})
    detail = "s3:// means OBS where only OBS_... keys are set, which" if scheme == "s3" else "obs://"
    wrong = f", not {found.region!r}," if found.region else ""
    raise ValueError(
        f"{detail} needs an endpoint: set OBS_ENDPOINT_URL, or OBS_REGION to a region such as cn-north-4{wrong} for "
        "https://obs.<region>.myhuaweicloud.com."
    )


def from_environment(scheme: str, environment: Mapping[str, str]) -> Credentials:
    """The credentials for ``s3`` or ``obs`` in the usual environment variables.

    ``obs`` has variables of its own (OBS_ENDPOINT_URL, OBS_ACCESS_KEY_ID, OBS_SECRET_ACCESS_KEY, OBS_SECURITY_TOKEN,
    OBS_REGION); for one that is not set, ``s3``'s is used. A key of OBS is never combined with a secret or token of
    S3.
    """
    found: dict[str, Any] = {
        "endpoint_url": environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL"),
        "access_key_id": environment.get("AWS_ACCESS_KEY_ID"),
        "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY"),
        "session_token": environment.get("AWS_SESSION_TOKEN"),
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION"),
        "virtual_hosted": environment.get("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "").lower() == "true",
        "anonymous": environment.get("AWS_SKIP_SIGNATURE", "").lower() == "true",
        "origin": "AWS_ACCESS_KEY_ID",
    }
    if scheme == "obs":
        own = {
            "endpoint_url": environment.get("OBS_ENDPOINT_URL") or environment.get("OBS_ENDPOINT"),
            "access_key_id": environment.get("OBS_ACCESS_KEY_ID"),
            "secret_access_key": environment.get("OBS_SECRET_ACCESS_KEY"),
            "session_token": environment.get("OBS_SECURITY_TOKEN"),
            "region": environment.get("OBS_REGION"),
        }
        if (own["access_key_id"] or "").strip():
            found |= {"secret_access_key": None, "session_token": None, "anonymous": False}
            found["origin"] = "OBS_ACCESS_KEY_ID"
        found |= {name: value for name, value in own.items() if value and value.strip()}
    endpoint = (found["endpoint_url"] or "").strip()
    if endpoint and "://" not in endpoint:
        found["endpoint_url"] = f"https://{endpoint}"
    return Credentials.model_validate({name: value for name, value in found.items() if value is not None})
