"""A model package's ``config.json``: the kind of model, its APIs, its dependencies and its health check."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.mapping import file_leaf
from tasks.domain.requirement import checked_name, checked_version, file_of

IMAGE = "Image"
CONFIG_NAMES = ("config.json", "model/config.json")
"""Possible paths of a package's configuration, below the package folder."""
CUSTOM_SERVICE = "customize_service.py"
BOOT_FILE = "run.sh"
REQUIREMENTS = "requirements.txt"
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*\Z")

Serving = Literal["built-in", "boot-file", "sidecar", "container", "running"]
"""How the model is served: by the built-in model server, by the package's run.sh, by the image in its swr_location next
to the instance's process in one pod or in a container of Docker's, or by a server that already runs."""

_RENAMED = {"sklearn": "scikit-learn", "cv2": "opencv-python-headless", "pil": "Pillow"}
"""Distributions that some packages call by the name of their module."""
_RESTRAINTS = {"EXACT": "==", "ATLEAST": ">=", "ATMOST": "<="}
_SAME_RESTRAINTS = {
    **dict.fromkeys(("EQUAL", "EQUALS", "EQ", "=", "=="), "EXACT"),
    **dict.fromkeys(("AT_LEAST", "MIN", "GE", ">="), "ATLEAST"),
    **dict.fromkeys(("AT_MOST", "MAX", "LE", "<="), "ATMOST"),
}
NOTHING: tuple[Any, ...] = ("", {}, [], None)
"""Values that count as absent where another type is expected."""


def _text_or_nothing(value: Any) -> Any:
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_text_or_nothing)]


class _Part(BaseModel, frozen=True, extra="allow", populate_by_name=True):
    """A part of the file. Real files have undocumented fields: these are kept, and are not errors."""

    @model_validator(mode="before")
    @classmethod
    def _nothing_is_absent(cls, value: Any) -> Any:
        return {name: held for name, held in value.items() if held is not None} if isinstance(value, dict) else value


class Message(_Part):
    """The form of an API's request or response: a content type and a JSON Schema."""

    content_type: str = Field(
        default="application/json",
        alias="Content-type",
        validation_alias=AliasChoices("Content-type", "Content-Type", "content-type", "content_type"),
    )
    data: dict[str, Any] = Field(default_factory=dict)

    @field_validator("content_type", mode="before")
    @classmethod
    def _decides_nothing(cls, value: Any) -> Any:
        return value if isinstance(value, str) else "application/json"

    @field_validator("data", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return {} if value == "" else value


class Api(_Part):
    """One API of the model: its URL path, method, request and response."""

    url: str = "/"
    method: str = "POST"
    request: Message = Field(default_factory=Message)
    response: Any = Field(default=None, description="what the answer looks like; answers are taken as they come")
    protocol: Any = None

    @field_validator("request", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        return {} if value in NOTHING else value

    @field_validator("url")
    @classmethod
    def _rooted(cls, value: str) -> str:
        if any(sign in value for sign in "\r\n \0"):
            raise ValueError("a URL path has no blanks")
        return value if value.startswith("/") else f"/{value}"

    @field_validator("method", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return (value.strip().upper() or "POST") if isinstance(value, str) else value

    @property
    def carries_body(self) -> bool:
        """Whether requests can be sent to it; a model may also have other APIs."""
        return self.method in ("POST", "PUT", "PATCH") and self.speaks_http

    @property
    def speaks_http(self) -> bool:
        """Whether its protocol is HTTP or not given; false for others, such as grpc."""
        return not isinstance(self.protocol, str) or self.protocol.strip().lower() in ("", "http", "https")

    @property
    def file_leaf(self) -> str | None:
        """Name of the request's leaf of type ``file``; None if the request is JSON."""
        return file_leaf(self.request.data)


class PackageRequirement(_Part):
    """One Python package that the model needs."""

    package_name: str
    package_version: Text | None = None
    restraint: Literal["EXACT", "ATLEAST", "ATMOST"] | None = None

    @field_validator("package_name")
    @classmethod
    def _is_no_option(cls, value: str) -> str:
        return checked_name(value)

    @field_validator("package_version")
    @classmethod
    def _is_a_version(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if set(info.data.get("package_name", "")) & set("<>=~!"):
            raise ValueError("package_name already has a version")
        return checked_version(value)

    @field_validator("restraint", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        name = value.strip().upper()
        return _SAME_RESTRAINTS.get(name, name) or None

    @model_validator(mode="before")
    @classmethod
    def _of_a_version(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("package_version") in NOTHING:
            return {name: held for name, held in value.items() if name not in ("package_version", "restraint")}
        return value

    @property
    def requirement(self) -> str:
        """The requirement as pip writes it: ``onnxruntime==1.20.0``."""
        if (file := file_of(self.package_name)) is not None:
            return f"./{file}"
        name = _RENAMED.get(self.package_name.lower(), self.package_name)
        return f"{name}{_RESTRAINTS[self.restraint or 'EXACT']}{self.package_version}" if self.package_version else name


class Dependency(_Part):
    """Packages that one installer installs, in order."""

    installer: Literal["pip"] = "pip"
    packages: tuple[PackageRequirement, ...] = ()

    @field_validator("installer", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value


class Health(_Part):
    """The health check of an instance. Durations in seconds."""

    @model_validator(mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any) -> Any:
        return {name: held for name, held in value.items() if held != ""} if isinstance(value, dict) else value

    url: str = "/health"
    protocol: str = Field(default="HTTP", validation_alias=AliasChoices("protocol", "procotol"))
    initial_delay_seconds: float = Field(default=0, ge=0)
    timeout_seconds: float = Field(default=5, gt=0)
    period_seconds: float = Field(default=5, gt=0)
    failure_threshold: int = Field(default=12, ge=1)

    @field_validator("url")
    @classmethod
    def _rooted(cls, value: str) -> str:
        return value if value.startswith("/") else f"/{value}"

    @field_validator("protocol")
    @classmethod
    def _known(cls, value: str) -> str:
        if value.strip().upper() not in ("HTTP", "HTTPS"):
            raise ValueError("should be HTTP or HTTPS")
        return value.strip().upper()


class PackageConfig(_Part, protected_namespaces=()):
    """A whole ``config.json``."""

    model_type: str
    model_algorithm: Any = ""
    runtime: Text | None = None
    metrics: Any = None
    apis: tuple[Api, ...] = Field(default=(Api(),), validation_alias=AliasChoices("apis", "api"))
    dependencies: tuple[Dependency, ...] = ()
    health: Health = Field(default_factory=Health)
    swr_location: str | None = None
    _passed_over: tuple[str, ...] = PrivateAttr(default=())

    @property
    def passed_over(self) -> tuple[str, ...]:
        """Parts of the file that no service uses, with reasons; known only where the file was read."""
        return self._passed_over

    def passing_over(self, parts: Iterable[str]) -> PackageConfig:
        """A copy with the parts that were passed over when the file was read."""
        config = self.model_copy()
        config._passed_over = tuple(parts)
        return config

    @field_validator("dependencies", "health", mode="before")
    @classmethod
    def _left_out(cls, value: Any, info: ValidationInfo) -> Any:
        return ((), {})[info.field_name == "health"] if value in NOTHING else value

    @field_validator("runtime", mode="before")
    @classmethod
    def _names_nothing(cls, value: Any) -> Any:
        return str(value) if isinstance(value, (str, int, float)) else None

    @field_validator("apis")
    @classmethod
    def _one_at_least(cls, value: tuple[Api, ...]) -> tuple[Api, ...]:
        return value or (Api(),)

    def api(self, request_path: str | None) -> Api:
        """The API at ``request_path``; without a path the only one (or only one with a body), else the one at ``/``.

        Of several at one path, one that carries a body is preferred. Raises KeyError if there is no such API.
        """
        apis = sorted(self.apis, key=lambda api: not api.carries_body)
        if request_path is None:
            if len(apis) == 1 or (apis[0].carries_body and not apis[1].carries_body):
                return apis[0]
            request_path = "/"
        for api in apis:
            if api.url == request_path:
                return api
        raise KeyError(request_path)

    def for_server(self) -> str:
        """What the built-in model server needs of it, as JSON: the file may have comments, or be in GB18030."""
        apis = [{"url": api.url, "method": api.method, "response": _content_type(api.response)} for api in self.apis]
        return json.dumps({"model_type": self.model_type, "apis": apis, "health": {"url": self.health.url}})

    @property
    def named_twice(self) -> list[str]:
        """A sentence for each Python package that is required more than once: the last one wins."""
        required: dict[str, list[str]] = {}
        for package in (package for step in self.dependencies for package in step.packages):
            required.setdefault(package.package_name.lower(), []).append(package.requirement)
        return [
            f"{name} stands {len(found)} times ({', '.join(found)}): the last one wins"
            for name, found in required.items()
            if len(found) > 1
        ]

    @property
    def wheels(self) -> dict[str, str]:
        """Paths, below the package, of the wheels and archives that its dependencies name, by field."""
        named = {
            f"dependencies[{step}].packages[{number}].package_name": file_of(package.package_name)
            for step, dependency in enumerate(self.dependencies)
            for number, package in enumerate(dependency.packages)
        }
        return {field: file for field, file in named.items() if file is not None}

    @property
    def requirements(self) -> list[list[str]]:
        """The Python requirements, one list per installer step, in the order of installation."""
        return [[package.requirement for package in step.packages] for step in self.dependencies if step.packages]


def _content_type(response: Any) -> dict[str, str]:
    try:
        return {"Content-type": Message.model_validate(response or {"Content-type": ""}).content_type}
    except ValidationError:
        return {}


def serving_of(
    config: PackageConfig, files: AbstractSet[str], where: str, *, in_pods: bool = False, in_containers: bool = False
) -> Serving:
    """How a package with these files at its top level is served: by processes of a machine, ``in_pods`` of a cluster,
    or ``in_containers`` that runs start.

    Raises SpecificationError if the package does not define how, or cannot be served.
    """
    if in_containers and not (config.model_type == IMAGE and config.swr_location):
        expected = (
            f"should be a model of type {IMAGE} with swr_location: runs of this resource pool can start containers, so "
            "that no other code may run in them"
        )
        raise SpecificationError([Problem("model", where, expected)])
    if config.health.protocol == "HTTPS":
        expected = "health.protocol of its config.json should be HTTP: instances are asked at 127.0.0.1"
        raise SpecificationError([Problem("model", where, expected)])
    if CUSTOM_SERVICE in files and config.model_type != IMAGE:
        return "built-in"
    if (in_pods or in_containers) and config.model_type == IMAGE and config.swr_location:
        if not _IMAGE.match(config.swr_location):
            field = "swr_location of the model's config.json"
            expected = "should be the address of an image, as in registry.example.com/team/model:1.0"
            raise SpecificationError([Problem(field, config.swr_location, expected)])
        return "sidecar" if in_pods else "container"
    if BOOT_FILE in files:
        return "boot-file"
    if config.model_type == IMAGE:
        raise SpecificationError([Problem("model", where, _no_boot_file(config, in_pods))])
    expected = f"the package has no {CUSTOM_SERVICE} or {BOOT_FILE}, so nothing says how it is served"
    if isinstance(code := (config.model_extra or {}).get("execution_code"), str) and code:
        expected += f"; execution_code of its config.json names the code ({code}): copy it into the package"
    raise SpecificationError([Problem("model", where, expected)])


def _no_boot_file(config: PackageConfig, in_pods: bool) -> str:
    detail = f"the package has no {BOOT_FILE}, so nothing says how it is served"
    if in_pods:
        return f"{detail}; nor does its config.json name an image in swr_location"
    if config.swr_location:
        return (
            f"{detail}; the image in its swr_location runs on docker pools with an engine, and on pools whose "
            "instances are pods (cluster.kind kubernetes)"
        )
    return detail


def validation_problems(error: ValidationError, prefix: str = "") -> list[Problem]:
    """Pydantic's errors as problems; the field is the path inside the JSON."""
    problems = []
    for found in error.errors(include_url=False, include_context=False):
        field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in found["loc"]).lstrip(".")
        value = found["input"] if not isinstance(found["input"], (dict, list)) else None
        problems.append(Problem(f"{prefix}{field or 'value'}", value, _sentence(found["type"], found["msg"])))
    return problems


def _sentence(kind: str, message: str) -> str:
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return "is not a known field"
    return message.removeprefix("Value error, ").replace("Input should", "should")
