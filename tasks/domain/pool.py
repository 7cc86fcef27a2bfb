"""Resource pools and the flavors they offer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.domain.package import PackageConfig


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Flavor(_Part):
    """A named amount of CPU, memory and accelerators that a pool offers per instance."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    cpu: Annotated[float, Field(gt=0, description="CPU cores")]
    memory_gb: Annotated[float, Field(gt=0, description="memory in GiB")]
    accelerators: Annotated[int, Field(ge=0, description="number of GPUs or NPUs")] = 0
    price_per_hour: Annotated[float | None, Field(ge=0, description="price of one instance for an hour")] = None


class Pool(_Part):
    """Where instances run. In Prefect: a work pool."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    kind: Annotated[Literal["process", "docker", "kubernetes"], Field(description="what an instance is")] = "process"
    access: Annotated[Literal["public", "dedicated"], Field(description="for everybody, or for one team")] = "public"
    contact: Annotated[str, Field(description="who to ask for it")] = "the administrator"
    max_runs: Annotated[int | None, Field(ge=1, description="runs at the same time")] = None
    flavors: Annotated[tuple[Flavor, ...], Field(min_length=1)]

    def flavor(self, name: str) -> Flavor | None:
        """The flavor called ``name``, or None."""
        return next((flavor for flavor in self.flavors if flavor.name == name), None)

    def flavors_for(self, config: PackageConfig | None) -> list[Flavor]:
        """The flavors that satisfy a model, in the pool's order; all of them for a model that asks for nothing.

        A model asks through ``accelerators``, ``min_cpu`` and ``min_memory_gb`` in its config.json, if it has them.
        """
        wants = {} if config is None else (config.model_extra or {})
        return [
            flavor
            for flavor in self.flavors
            if flavor.accelerators >= _amount(wants.get("accelerators"))
            and flavor.cpu >= _amount(wants.get("min_cpu"))
            and flavor.memory_gb >= _amount(wants.get("min_memory_gb"))
        ]


def _amount(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return 0.0
