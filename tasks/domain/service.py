"""The service specification: one model for YAML files, the form in the Prefect UI and Python."""

from __future__ import annotations

import json
import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, ValidationInfo, field_validator

from tasks.domain import paths
from tasks.domain.bare_models import is_model_file_name
from tasks.domain.environment import as_text, environment_texts
from tasks.domain.headers import header_texts
from tasks.domain.plain_text import has_halves, plain_line
from tasks.domain.running_address import is_running_model, running_addresses
from tasks.domain.schedule import Schedule
from tasks.domain.secret_reference import SECRET_REFERENCE, check_meant
from tasks.domain.secret_words import SECRET_WORDS

NAME = re.compile(r"^[A-Za-z0-9_-]{1,64}$")
FORBIDDEN_IN_DESCRIPTION = "!<>=&\"'"
_ROWS = re.compile(r"[0-9]{1,9}")


def default_name() -> str:
    """``service-`` and four random hex digits."""
    return f"service-{secrets.token_hex(2)}"


class BatchService(
    BaseModel,
    frozen=True,
    extra="forbid",
    protected_namespaces=(),
    populate_by_name=True,
    serialize_by_alias=True,
    allow_inf_nan=False,
    hide_input_in_errors=True,  # the input holds the environment
    title="Batch service",
):
    """A model package plus the data it reads and the folder it writes."""

    name: str = Field(
        default_factory=default_name, title="Name", description="1-64 letters, digits, '-' or '_'", pattern=NAME.pattern
    )
    description: str = Field(
        default="", title="Description", description="Up to 100 characters, none of ! < > = & \" '", max_length=100
    )
    resource_pool: str = Field(
        default="public-cpu", title="Resource pool", description="Where the instances run", min_length=1
    )
    model_source: Literal["my-models", "my-subscriptions"] = Field(
        default="my-models", title="Model source", description="In which part of the model store the model is"
    )
    model: str = Field(
        title="Model",
        min_length=1,
        description="Name in the model source, path or URL of a package folder or bare model, or http(s):// address of "
        "a model server that already runs; several addresses, separated by blanks, share the load",
    )
    model_version: str | None = Field(
        default=None, title="Version", description="Default: the newest version in the Normal state"
    )
    input_path: str = Field(
        title="Input path", description="Folder, file or .manifest file: local path, file://, s3:// or obs://"
    )
    request_path: str | None = Field(
        default=None,
        title="Request path",
        description="One of the API urls of the model's config.json; default: its only one, else /",
    )
    mapping: dict[str, Any] | None = Field(
        default=None,
        title="Mapping relationship",
        description="Request schema with an index (CSV column from 0) per field; default: made from config.json",
    )
    output_path: str = Field(
        title="Output path", description="An empty folder; {task_id}, {name} and {scheduled_time:%Y-%m-%d} are replaced"
    )
    flavor: str | None = Field(
        default=None, title="Instance flavor", description="Default: the pool's first flavor that satisfies the model"
    )
    instances: int = Field(
        default=1,
        title="Instances",
        description="1: standalone computing mode, more: distributed computing mode",
        ge=1,
        le=128,
    )
    environment: dict[str, Annotated[str, AfterValidator(check_meant)]] = Field(
        default_factory=dict,
        title="Environment variables",
        description="For the model server only. Secrets by reference: {{ prefect.blocks.secret.NAME }}",
    )
    timeout_minutes: float = Field(
        default=20,
        title="Timeout (minutes)",
        description="For one instance to be prepared, started and healthy",
        ge=3,
        le=120,
    )
    runtime_log_output: bool = Field(
        default=False,
        title="Runtime log output",
        description="Export the model server's output to the log store; stays on once on",
    )
    schedule: Schedule | None = Field(default=None, title="Schedule", description="Starts by itself")
    error_threshold: float | None = Field(
        default=None,
        title="Error threshold",
        ge=0,
        description="Share (below 1) or number of failed items above which the run stops; default: never",
    )
    deadline_minutes: float | None = Field(
        default=None,
        title="Deadline (minutes)",
        description="For the whole run, from its start; then it stops early with a complete manifest; default: none",
        gt=0,
    )
    failed_of: str | None = Field(
        default=None,
        title="Failed items of",
        description="Output manifest of an earlier run: only its FAILED items are processed; default: the whole "
        "input path",
    )
    merge: bool = Field(
        default=False,
        title="Merge",
        description="With failed items of an earlier run: the new manifest is complete, with its SUCCESSFUL lines",
    )
    result_folder: Literal["infer-result-{task_id}", "infer-result"] = Field(
        default="infer-result-{task_id}",
        title="Result folder",
        description="infer-result: the older layout, the output folder must be really empty",
    )
    max_concurrency: int | None = Field(
        default=None,
        title="Requests in flight",
        description="At most, per instance; default: found while running",
        ge=1,
        le=1024,
    )
    rows_per_request: int | Literal["auto"] = Field(
        default=1, title="Rows per request", description="CSV rows in one request: 1, a number, or auto"
    )
    csv_header: Literal["absent", "present"] = Field(
        default="absent", title="CSV header", description="Whether the first line of a CSV file holds names"
    )
    empty_cells: Literal["refuse", "null", "omit"] = Field(
        default="refuse",
        title="Empty cells",
        description="Of a number, integer or boolean: refuse (the row fails), null, or omit the field",
    )
    headers: dict[str, Annotated[str, AfterValidator(check_meant)]] = Field(
        default_factory=dict,
        title="HTTP headers",
        description="Of every request to the model server; secrets by reference: {{ prefect.blocks.secret.NAME }}",
    )
    request_timeout_seconds: float | None = Field(
        default=None,
        title="Request timeout (seconds)",
        description="For the answer to one request; default: the administrator's",
        gt=0,
        le=86_400,
    )
    outage_minutes: float = Field(
        default=15,
        title="Outage (minutes)",
        description="How long a running model server may be away or overloaded before the run stops",
        ge=0,
        le=10_080,
    )
    loosen: bool = Field(
        default=False,
        title="Loosen",
        description="Whether a Python or a pinned package of the model that cannot be had becomes the nearest one",
    )
    priority: int = Field(default=1, title="Priority", description="1-3, higher first in its pool", ge=1, le=3)
    running_config: Annotated[
        str | None,
        Field(
            alias="model_config",
            title="Model configuration",
            description="For a model server that already runs: path of its config.json, or the JSON text itself",
        ),
    ] = None

    @field_validator("name", "description", "resource_pool", "model", "model_version", "flavor", mode="before")
    @classmethod
    def _text(cls, value: Any) -> Any:
        return as_text(value)

    @field_validator("model_version", "request_path", "flavor", "mapping", "failed_of", "running_config", mode="before")
    @classmethod
    def _left_empty(cls, value: Any) -> Any:
        # Forms submit these for an empty field.
        return None if value in ("", {}) else value

    @field_validator("environment", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return environment_texts(value)

    @field_validator("headers", mode="before")
    @classmethod
    def _header_texts(cls, value: Any) -> Any:
        return header_texts(value)

    @field_validator("model")
    @classmethod
    def _addresses(cls, value: str) -> str:
        return " ".join(running_addresses(value)) if is_running_model(value) else value

    @field_validator("description")
    @classmethod
    def _plain(cls, value: str) -> str:
        if plain_line(value) != value:
            raise ValueError("should be one line, without control characters and signs that are not seen")
        if found := [sign for sign in FORBIDDEN_IN_DESCRIPTION if sign in value]:
            raise ValueError(f"should have none of ! < > = & \" ' (it has {' '.join(found)})")
        return value

    @field_validator("input_path", "output_path")
    @classmethod
    def _storage(cls, value: str) -> str:
        if has_halves(value):
            raise ValueError("should be UTF-8")
        if paths.parse_address(value).scheme == "http":
            raise ValueError("should be a local path, file://, s3:// or obs://; share links stand in a manifest")
        return value

    @field_validator("output_path")
    @classmethod
    def _words(cls, value: str) -> str:
        if unknown := paths.unknown_words(value):
            raise ValueError(
                f"{{{unknown[0]}}} is not known; replaced are {{task_id}}, {{name}} and {{scheduled_time:%Y-%m-%d}}"
            )
        return value

    @field_validator("rows_per_request", mode="before")
    @classmethod
    def _rows(cls, value: Any) -> Any:
        # Before the validation of types: one message instead of one per type of the union.
        text = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()
        if text != "auto" and not (_ROWS.fullmatch(text) and 1 <= int(text) <= 10_000):
            raise ValueError("should be 1 to 10000, or auto")
        return text if text == "auto" else int(text)

    @field_validator("error_threshold")
    @classmethod
    def _count(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("should be a share below 1 or a whole number of items")
        return value

    @field_validator("failed_of")
    @classmethod
    def _earlier_manifest(cls, value: str | None) -> str | None:
        if value is not None and paths.run_of_manifest(cls._storage(value)) is None:
            raise ValueError("should be the first part of an output manifest: .../infer-result-<task id>.manifest")
        return value

    @field_validator("merge")
    @classmethod
    def _of_an_earlier_run(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("failed_of", "") is None:
            raise ValueError("needs failed_of, the output manifest of the earlier run")
        return value

    @field_validator("running_config", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return json.dumps(value) if isinstance(value, dict) else value

    @field_validator("result_folder")
    @classmethod
    def _layout_of_scheduled_runs(cls, value: str, info: ValidationInfo) -> str:
        # A field validator, not a model validator: its problem is reported together with those of other fields.
        output = info.data.get("output_path")
        scheduled = info.data.get("schedule") is not None
        if value == "infer-result" and scheduled and output is not None and not paths.has_words(output):
            raise ValueError(
                "output_path of a scheduled service with result_folder infer-result should hold {task_id} or "
                "{scheduled_time}, else its second run finds the folder full"
            )
        return value

    @property
    def plain_text_secrets(self) -> list[str]:
        """Names of environment variables that appear to hold a secret in plain text."""
        return [
            name
            for name, value in self.environment.items()
            if value and SECRET_WORDS.search(name) and not SECRET_REFERENCE.search(value)
        ]

    @property
    def secret_variables(self) -> list[str]:
        """Names of environment variables that hold a secret: a secret reference, or a name that suggests one."""
        return [
            name
            for name, value in self.environment.items()
            if SECRET_WORDS.search(name) or SECRET_REFERENCE.search(value)
        ]


def is_package_address(model: str) -> bool:
    """Whether a service's ``model`` is the path or URL of a package or model file, not a name in the model store."""
    return "://" in model or "/" in model or model in (".", "..") or model.startswith("~") or is_model_file_name(model)
