"""Resource pools and the flavors they offer."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from tasks.domain.package import PackageConfig
from tasks.domain.runtime import parse_runtime
from tasks.domain.secret_words import SECRET_WORDS

_OF_KINDS: dict[tuple[str, ...], tuple[str, ...]] = {
    ("docker", "kubernetes"): ("image",),
    ("docker",): ("network", "volumes", "engine"),
    ("kubernetes",): ("namespace", "service_account", "accelerator_resource"),
}
"""Fields that only some kinds of pools have."""


class _Part(BaseModel, frozen=True, extra="forbid"):
    """A part of a pool file."""


class Flavor(_Part):
    """A named amount of CPU, memory and accelerators that a pool offers per instance."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    cpu: Annotated[float, Field(gt=0, description="CPU cores")]
    memory_gb: Annotated[float, Field(gt=0, description="memory in GiB")]
    accelerators: Annotated[int, Field(ge=0, description="number of GPUs or NPUs")] = 0
    price_per_hour: Annotated[float | None, Field(ge=0, description="price of one instance for an hour")] = None


class Cluster(_Part):
    """Where the instances of distributed computing mode come from: each is a worker of a Dask cluster."""

    kind: Annotated[
        Literal["local", "scheduler", "kubernetes"],
        Field(description="processes next to the run's own, an existing scheduler, or pods of dask-kubernetes"),
    ] = "local"
    address: Annotated[
        str | None, Field(pattern=r"^(tcp|tls|ws|wss|ucx)://\S+:\d+$", description="address of the existing scheduler")
    ] = None
    ca_file: Annotated[
        str | None, Field(pattern=r"^/", description="certificates (PEM) that scheduler and workers are known by")
    ] = None
    certificate_file: Annotated[
        str | None, Field(pattern=r"^/", description="certificate (PEM) of the runs; default: Dask's configuration")
    ] = None
    key_file: Annotated[str | None, Field(pattern=r"^/", description="its key (PEM)")] = None
    insecure_scheduler: Annotated[
        Literal["refuse", "loopback", "allow"],
        Field(
            description="a scheduler without TLS, where all that reach it run code as the user of the runs: refused, "
            "used on this machine's loopback only, or used anywhere"
        ),
    ] = "loopback"

    @model_validator(mode="after")
    def _fields_of_the_kind(self) -> Cluster:
        if (self.kind == "scheduler") != (self.address is not None):
            raise ValueError("address is needed for kind scheduler, as in tls://scheduler:8786, and for no other kind")
        files = {name: getattr(self, name) for name in ("ca_file", "certificate_file", "key_file")}
        if any(files.values()) and not self.encrypted:
            raise ValueError(f"{', '.join(files)} are for a scheduler whose address begins with tls:// or wss://")
        if any(files.values()) and not all(files.values()):
            missing = ", ".join(name for name, path in files.items() if path is None)
            raise ValueError(f"{missing} is missing: all three of {', '.join(files)}, or none (Dask's configuration)")
        allowed = self.insecure_scheduler == "allow" or (self.insecure_scheduler == "loopback" and self.on_loopback)
        if self.address is not None and not self.encrypted and not allowed:
            raise ValueError(
                f"address {self.address} has no TLS: all that reach such a scheduler, or a worker of it, run code as "
                "the user of the runs. Use a tls:// address, or, in a network of their own, insecure_scheduler: allow"
            )
        return self

    @property
    def encrypted(self) -> bool:
        """Whether the connection to the existing scheduler uses TLS."""
        return self.address is not None and self.address.startswith(("tls://", "wss://"))

    @property
    def on_loopback(self) -> bool:
        """Whether the existing scheduler can be reached from this machine only."""
        host = urlsplit(self.address or "").hostname or ""
        try:
            return ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class Engine(_Part):
    """The Docker Engine on which runs start a container of the model's image for each instance."""

    address: Annotated[
        str,
        Field(
            pattern=r"^(unix:///[A-Za-z0-9._/-]+|tcp://[A-Za-z0-9._-]+:\d+)$", description="of its API, for the runs"
        ),
    ] = "unix:///var/run/docker.sock"
    group: Annotated[
        int | None, Field(ge=1, description="number of the group that may use its socket, on the worker's machine")
    ] = None
    network: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="network of the containers")]

    @property
    def socket(self) -> str | None:
        """The path of its socket; None if it is reached by TCP."""
        return self.address.removeprefix("unix://") if self.address.startswith("unix://") else None


class Pool(_Part):
    """Where instances run. In Prefect: a work pool."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    kind: Annotated[Literal["process", "docker", "kubernetes"], Field(description="what an instance is")] = "process"
    access: Annotated[Literal["public", "dedicated"], Field(description="for everybody, or for one team")] = "public"
    contact: Annotated[str, Field(description="who to ask for it")] = "the administrator"
    max_runs: Annotated[int | None, Field(ge=1, description="runs at the same time")] = None
    flavors: Annotated[tuple[Flavor, ...], Field(min_length=1)]
    image: Annotated[str | None, Field(description="image of a run's container")] = None
    environment: Annotated[
        dict[str, str], Field(description="variables of a run's process or container, no secrets")
    ] = Field(default_factory=dict)
    cluster: Annotated[Cluster, Field(description="where the instances of distributed computing mode come from")] = (
        Cluster()
    )
    network: Annotated[str | None, Field(description="Docker network of the containers")] = None
    volumes: Annotated[tuple[str, ...], Field(description="Docker volumes, as host:container")] = ()
    engine: Annotated[
        Engine | None, Field(description="Docker Engine that runs the images of models of type Image")
    ] = None
    namespace: Annotated[str | None, Field(description="Kubernetes namespace of the jobs; default: default")] = None
    service_account: Annotated[str | None, Field(description="Kubernetes service account of the jobs")] = None
    accelerator_resource: Annotated[
        str | None, Field(description="Kubernetes resource of an accelerator; default: nvidia.com/gpu")
    ] = None
    model_root: Annotated[
        Literal["writable"] | None,
        Field(description="the model's image may write into its own file system, not only into /tmp"),
    ] = None

    @field_validator("environment")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        if found := [name for name, text in value.items() if text and _looks_secret(name)]:
            raise ValueError(f"should hold no secret ({', '.join(found)}): it is shown to everybody on the server")
        return value

    @field_validator("flavors")
    @classmethod
    def _named_once(cls, value: tuple[Flavor, ...]) -> tuple[Flavor, ...]:
        names = [flavor.name for flavor in value]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"should have different names ({', '.join(twice)} stands there more than once)")
        return value

    @model_validator(mode="after")
    def _fields_of_the_kind(self) -> Pool:
        if self.kind != "process" and not self.image:
            raise ValueError(f"image is needed: a run of a {self.kind} pool is a container")
        if self.cluster.kind == "kubernetes":
            if self.kind != "kubernetes":
                expected = f"is for kubernetes pools only, this one's kind is {self.kind}"
                raise ValueError(f"cluster.kind kubernetes {expected}")
            if not self.service_account:
                expected = "a run makes the pods of its instances itself, and needs a service account that may"
                raise ValueError(f"service_account is needed with cluster.kind kubernetes: {expected}")
        if self.engine and self.cluster.kind != "local":
            raise ValueError("engine is for a pool whose cluster.kind is local: each run starts containers where it is")
        if self.model_root and not (self.engine or self.makes_pods):
            raise ValueError("model_root is for pools that run images of models: kubernetes, or docker with an engine")
        for kind, names in _OF_KINDS.items():
            for name in names:
                if self.kind not in kind and getattr(self, name):
                    raise ValueError(f"{name} is for {' and '.join(kind)} pools only, this one's kind is {self.kind}")
        return self

    @property
    def makes_pods(self) -> bool:
        """Whether every instance is a pod of its own, even a single one."""
        return self.cluster.kind == "kubernetes"

    @property
    def resource_of_accelerators(self) -> str:
        """The cluster's resource name of an accelerator."""
        return self.accelerator_resource or "nvidia.com/gpu"

    def flavor(self, name: str) -> Flavor | None:
        """The flavor called ``name``, or None."""
        return next((flavor for flavor in self.flavors if flavor.name == name), None)

    def flavors_for(self, config: PackageConfig | None) -> list[Flavor]:
        """The flavors that satisfy a model, in the pool's order; all of them for a model without requirements.

        A model's requirements are ``accelerators``, ``min_cpu`` and ``min_memory_gb`` in its config.json, if present.
        """
        wants = {} if config is None else (config.model_extra or {})
        return [
            flavor
            for flavor in self.flavors
            if flavor.accelerators >= _amount(wants.get("accelerators"))
            and flavor.cpu >= _amount(wants.get("min_cpu"))
            and flavor.memory_gb >= _amount(wants.get("min_memory_gb"))
        ]

    def default_flavor(self, config: PackageConfig | None) -> Flavor | None:
        """The first flavor that satisfies a model; if its runtime is one for accelerators, the first with some.

        Such a model also runs on a pool without accelerators. None if no flavor satisfies it.
        """
        suited = self.flavors_for(config)
        fast = [flavor for flavor in suited if flavor.accelerators and asks_for_accelerator(config)]
        return next(iter(fast or suited), None)

    def without_accelerator(self, config: PackageConfig | None, flavor: Flavor) -> str:
        """A warning that a model whose runtime is one for accelerators gets none; empty if there is nothing to say."""
        if config is None or flavor.accelerators or not asks_for_accelerator(config):
            return ""
        others = ", ".join(one.name for one in self.flavors_for(config) if one.accelerators)
        rest = f"; flavors of {self.name} with some: {others}" if others else f", nor has any other of {self.name}"
        return (
            f"the model's runtime {config.runtime} is one for accelerators, and the flavor {flavor.name} has none"
            f"{rest}. The model runs on CPUs, which may be slow or fail"
        )


def asks_for_accelerator(config: PackageConfig | None) -> bool:
    """Whether a model's ``runtime`` is one for GPUs or NPUs: ``pytorch_1.8.0-cuda_10.2-py_3.7...``, ``tf1.13-gpu``."""
    return config is not None and parse_runtime(config.runtime).accelerator


def _looks_secret(variable: str) -> bool:
    """Whether a variable's value may be a secret; the name of a Prefect block that keeps one is not."""
    return bool(SECRET_WORDS.search(variable)) and not variable.endswith("_BLOCK")


def _amount(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0
