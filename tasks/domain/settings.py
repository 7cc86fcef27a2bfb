"""The administrator's settings, from ``THRESHER_*`` environment variables. Read whenever a run begins or continues."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, ByteSize, Field, TypeAdapter, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.package import validation_problems
from tasks.domain.paths import parse_address

ROOT = Path(__file__).resolve().parents[2]
"""The folder that holds flows/, tasks/ and infra/."""

MIB = 1 << 20
_SIZE = TypeAdapter(ByteSize)
_WEB_ADDRESS = re.compile(r"https?://[^/?#\s]+\S*\Z", re.IGNORECASE)


def _bytes(value: object) -> object:
    """A number of bytes in common notations: 67108864, 64MiB, 64MB (64 million)."""
    try:
        return int(_SIZE.validate_python(value.strip())) if isinstance(value, str) else value
    except ValidationError:
        raise ValueError("should be a number of bytes, such as 67108864, 64MiB or 64MB") from None


Bytes = Annotated[int, BeforeValidator(_bytes)]


class Settings(BaseSettings, env_prefix="THRESHER_", frozen=True, extra="ignore", protected_namespaces=()):
    """Each field ``x`` is set by the environment variable ``THRESHER_X``."""

    model_store: str = Field(
        default="~/.local/share/thresher/models", description="folder of the model store, on any storage"
    )
    cache: Path = Field(default=Path("~/.cache/thresher"), description="environments and copies of remote packages")
    pythons: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="interpreters, or folders of some, for model packages (comma between), besides PATH, pyenv and uv",
    )
    loosen: bool = Field(
        default=False,
        description="whether a Python or a pinned package that cannot be had becomes the nearest one that can",
    )
    offline: bool = Field(default=False, description="whether packages are installed from the cache only")
    base_packages: Path = Field(
        default=ROOT / "infra" / "serving" / "base_packages.toml",
        description="file of the packages that models import without naming them, by type",
    )
    pools: Path = Field(default=ROOT / "infra" / "pools", description="folder of the resource pools' files")
    stack: Path = Field(
        default=Path("~/.local/share/thresher/stack"),
        description="what `thresher up` keeps: Prefect's database, logs",
    )
    max_services: int = Field(default=1_000, ge=1, description="batch services on one server; the next one is refused")
    zombie_seconds: int = Field(
        default=90, ge=35, description="a run that was not heard of for so long is Crashed (its heartbeat: every 30 s)"
    )
    log_store: str = Field(
        default="~/.local/share/thresher/logs",
        description="folder or bucket (s3://, obs://) of the log store, for services with runtime_log_output",
    )
    log_otlp_endpoint: str | None = Field(
        default=None, description="OTLP address (HTTP) that gets what the log store gets, such as http://collector:4318"
    )
    log_lines_per_second: float = Field(
        default=20, gt=0, description="lines of an instance that go to the run's Logs tab, in the long run"
    )
    log_bytes_per_second: Bytes = Field(
        default=MIB, ge=1 << 10, description="of an instance's output that is kept in the long run; a burst may be more"
    )
    max_log_bytes: Bytes = Field(
        default=64 * MIB,
        ge=MIB,
        description="of an instance's output that is kept next to the results, and in the log store; then its end only",
    )
    max_item_bytes: Bytes = Field(default=12 * MIB, ge=1, description="an image must be smaller, a CSV file not larger")
    chinese: Literal["refuse", "allow"] = Field(
        default="refuse", description="whether CSV files may have Chinese characters"
    )
    max_answer_bytes: Bytes = Field(default=256 * MIB, ge=1, description="a model's longer answer costs its item")
    manifest_lines: int = Field(default=100_000, ge=1, description="lines of one part of the output manifest")
    share_link_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="hosts (host or host:port, comma between) allowed in share links though not public"
    )
    devices: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        default=None,
        description="accelerators of this machine (0,1,2 or UUIDs) that instances may use; default: all that it has",
    )
    sidecar_port: int = Field(
        default=8080, ge=1, le=65535, description="port at which a model image answers that runs next to an instance"
    )
    s3_credentials_block: str | None = Field(
        default=None,
        description="name of a Prefect Secret block with endpoint_url, access_key_id, secret_access_key ...",
    )
    obs_credentials_block: str | None = Field(default=None, description="the same for obs://")
    request_timeout_seconds: float = Field(default=300, gt=0, description="longest wait for the answer to one request")
    download_timeout_seconds: float = Field(default=300, gt=0, description="longest time to read or write one object")
    storage_retry_seconds: float = Field(
        default=60, gt=0, description="an object storage that does not answer, or refuses for now, is tried so long"
    )
    bytes_in_flight: Bytes = Field(default=256 * MIB, ge=MIB, description="bytes of items and answers held at once")
    shard_items: int = Field(default=5_000, ge=1, description="items of a shard, while there are few shards")
    shard_bytes: Bytes = Field(default=1 << 30, ge=1, description="bytes of a shard, while there are few shards")
    left_alone_seconds: float = Field(
        default=120, ge=10, description="an instance in distributed mode ends when its run has not looked at it so long"
    )
    report_seconds: float = Field(default=10, gt=0, description="time between two partial reports of a shard")

    @field_validator("share_link_hosts", "devices", "pythons", mode="before")
    @classmethod
    def _comma(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("chinese", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.strip().lower() if isinstance(value, str) else value

    @field_validator("model_store", "log_store")
    @classmethod
    def _writable(cls, value: str) -> str:
        if parse_address(value).scheme == "http":
            raise ValueError("should be a local path, file://, s3:// or obs://")
        return value

    @field_validator("log_otlp_endpoint")
    @classmethod
    def _web_address(cls, value: str | None) -> str | None:
        if value and _WEB_ADDRESS.match(value) is None:
            raise ValueError("should be an http:// or https:// address, such as http://collector:4318")
        return value

    @field_validator("cache", "pools", "stack", "base_packages")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().absolute()  # model servers and uv run in other working folders
        except RuntimeError:
            raise ValueError("begins with a home folder that is not known: set HOME, or give the whole path") from None
        except OSError:
            raise ValueError("is a relative path, and the working folder does not exist any more") from None


def read_settings() -> Settings:
    """The current settings. Raises SpecificationError naming each invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        problems = validation_problems(error)
        raise SpecificationError(
            [Problem(f"THRESHER_{one.field.upper()}", one.value, one.expected) for one in problems]
        ) from None
