"""One running copy of the model server: its command, environment and limits, and when it is given up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tasks.domain.pool import Flavor

DeviceKind = Literal["gpu", "npu"]
"""A GPU (NVIDIA or AMD) or an NPU (Ascend)."""

MAX_DEATHS_PER_REQUEST = 3
"""A request during which the model server died this often is not sent again."""
MAX_DEATHS_IN_A_ROW = 30
"""An instance that died this often without a response in between is given up: ten items in a row that kill it."""

_HANDED_ON = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SHELL", "TERM",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
}  # fmt: skip
_HANDED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "ASCEND_", "OMP_", "MKL_", "OPENBLAS_", "ORT_", "HF_HUB_OFFLINE")


_THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS", "NUMBA_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS",
    "RAYON_NUM_THREADS", "POLARS_MAX_THREADS", "GOMAXPROCS",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits for a model server together with everything that it starts."""

    cpu: float
    """Cores."""
    memory_bytes: int

    @classmethod
    def of(cls, flavor: Flavor) -> Limits:
        """The limits of a flavor."""
        return cls(cpu=flavor.cpu, memory_bytes=int(flavor.memory_gb * 1024**3))


@dataclass(frozen=True, slots=True)
class Launch:
    """How an instance is started.

    ``command`` runs in ``folder`` with exactly ``environment`` (plus ``PORT``), whose values may be secrets: a Launch
    is never logged.
    """

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must not be shown if the model server prints them."""
    limits: Limits | None = None
    """None for no limits but those of the machine."""
    log_bytes_per_second: int = 1 << 20
    """Average rate at which its output is kept."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with each request and health check."""
    warnings: tuple[str, ...] = ()
    """How it is prepared otherwise than the package says."""
    scratch: Path | None = None
    """A folder of its own, which is removed if the process that starts it is killed."""


@dataclass(frozen=True, slots=True)
class GivenEnvironment:
    """The service's variables for the model server, or headers for one that already runs, and their secrets."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def handed_on(own: Mapping[str, str]) -> dict[str, str]:
    """The part of this process's own environment that any program needs, without secrets."""
    return {name: value for name, value in own.items() if name in _HANDED_ON or name.startswith(_HANDED_ON_PREFIXES)}


def server_environment(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a model server: the part of this process's own that any program needs, and the service's.

    Nothing else is passed on: the model must not see keys of storages, of Prefect or of the user's shell.
    """
    return handed_on(own) | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | dict(given)


def thread_variables(cpu: float) -> dict[str, str]:
    """Variables that make the usual libraries use as many threads as ``cpu`` has whole cores; at least one.

    Otherwise they use all cores of the machine, and an instance with two of sixty-four would run 64 threads.
    """
    return dict.fromkeys(_THREAD_VARIABLES, str(max(1, math.floor(cpu))))


def device_variables(devices: Sequence[str], kind: DeviceKind = "gpu") -> dict[str, str]:
    """Variables that let a program see only these accelerators of one kind; with an empty list, no accelerator.

    Each variable has its own value for no device: CUDA and Ascend take the empty text, NVIDIA's container runtime
    ``void``, and HIP ``-1`` (an empty HIP_VISIBLE_DEVICES counts as not set).
    """
    gpus = ",".join(devices) if kind == "gpu" else ""
    npus = ",".join(devices) if kind == "npu" else ""
    return {
        "CUDA_VISIBLE_DEVICES": gpus,
        "NVIDIA_VISIBLE_DEVICES": gpus or "void",
        "HIP_VISIBLE_DEVICES": gpus or "-1",
        "ASCEND_RT_VISIBLE_DEVICES": npus,
    }


_SILENT = {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "ORT_DISABLE_TELEMETRY": "1"}
"""Disables the telemetry of model libraries, unless the environment enables it."""


def instance_environment(
    environment: Mapping[str, str], given: Mapping[str, str], limits: Limits | None
) -> dict[str, str]:
    """The environment of one instance: ``environment``, adapted to its limits.

    ``given`` are the service's own variables. Its thread counts take precedence.
    """
    threads = {} if limits is None else thread_variables(limits.cpu)
    return {**_SILENT, **environment, **threads, **given}


class Deaths:
    """Counts the deaths of one instance, and decides when it is given up."""

    def __init__(self) -> None:
        self.total = 0
        self._in_a_row = 0

    def died(self) -> bool:
        """Count a death; whether the instance is given up."""
        self.total += 1
        self._in_a_row += 1
        return self._in_a_row >= MAX_DEATHS_IN_A_ROW

    def answered(self) -> None:
        """The instance has answered a request."""
        self._in_a_row = 0
