"""One running copy of the model server: what it is started with, and when it is given up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tasks.domain.pool import Flavor

DeviceKind = Literal["gpu", "npu"]
"""A GPU (of NVIDIA or AMD), or an NPU (Ascend)."""

MAX_DEATHS_PER_REQUEST = 3
"""A request during which the model server died so often is not sent again."""
MAX_DEATHS_IN_A_ROW = 30
"""An instance that died so often without one answer in between is given up: ten items in a row that kill it."""

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
    """What a model server and everything it starts may use together."""

    cpu: float
    """Cores."""
    memory_bytes: int

    @classmethod
    def of(cls, flavor: Flavor) -> Limits:
        """The limits that a flavor means."""
        return cls(cpu=flavor.cpu, memory_bytes=int(flavor.memory_gb * 1024**3))


@dataclass(frozen=True, slots=True)
class Launch:
    """What an instance is started with.

    ``command`` is run in ``folder`` with exactly ``environment`` (plus ``PORT``); its values may be secrets, so a
    Launch is never logged.
    """

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must not be shown, should the model server print them."""
    limits: Limits | None = None
    """What it may use; None: whatever the machine has."""
    log_bytes_per_second: int = 1 << 20
    """Of what it prints so much is kept in the long run."""


@dataclass(frozen=True, slots=True)
class GivenEnvironment:
    """What a service gives the model server: its variables, or headers to one that already runs; what is secret."""

    values: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)


def handed_on(own: Mapping[str, str]) -> dict[str, str]:
    """What any program needs of this process's own environment; none of it is a secret."""
    return {name: value for name, value in own.items() if name in _HANDED_ON or name.startswith(_HANDED_ON_PREFIXES)}


def server_environment(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a model server: what any program needs of this process's own, and what the service gives.

    Nothing else is handed on: keys of storages, of Prefect, or of the user's shell are not the model's business.
    """
    return handed_on(own) | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | dict(given)


def thread_variables(cpu: float) -> dict[str, str]:
    """How many threads the usual libraries should use for so many cores; at least one.

    They ask for the cores of the machine otherwise, and an instance with two of sixty-four would run 64 threads.
    """
    return dict.fromkeys(_THREAD_VARIABLES, str(max(1, math.floor(cpu))))


def device_variables(devices: Sequence[str], kind: DeviceKind = "gpu") -> dict[str, str]:
    """What lets a program see these accelerators of one kind and no other ones; without any it sees none.

    Each variable has its own word for none: CUDA and Ascend take the empty text, NVIDIA's container runtime ``void``,
    and HIP ``-1`` (an empty HIP_VISIBLE_DEVICES counts as not set).
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
"""Libraries that models are made with tell nobody what they run, unless the environment wants it."""


def instance_environment(
    environment: Mapping[str, str],
    given: Mapping[str, str],
    limits: Limits | None,
    devices: Sequence[str] | None = None,
    kind: DeviceKind = "gpu",
) -> dict[str, str]:
    """The environment of one instance: ``environment``, fitted to its limits and to the accelerators it was given.

    ``given`` is what the service itself says: its thread counts win, what it says of accelerators does not, as another
    instance may be using them. Without ``devices`` (None) nothing is said of accelerators.
    """
    threads = {} if limits is None else thread_variables(limits.cpu)
    visible = {} if devices is None else device_variables(devices, kind)
    return {**_SILENT, **environment, **threads, **given, **visible}


class Deaths:
    """Counts the deaths of one instance; decides when it is given up."""

    def __init__(self) -> None:
        self.total = 0
        self._in_a_row = 0

    def died(self) -> bool:
        """Count a death; whether the instance is given up."""
        self.total += 1
        self._in_a_row += 1
        return self._in_a_row >= MAX_DEATHS_IN_A_ROW

    def answered(self) -> None:
        """The instance gave an answer."""
        self._in_a_row = 0
