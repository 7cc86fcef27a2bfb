"""Instances as containers of a model's image: what Docker is asked for. No I/O; container_process.py does that."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.clients.cluster.pod_security import USER
from tasks.domain.instance import Launch, Limits, instance_environment, server_environment
from tasks.domain.run import Run

ASKED = "CONTAINER"
"""Variable with what container_process.py is to do, as JSON; it may hold secrets."""
RUN_LABEL = "thresher.run"
PROCESSES = 4096
_SCRIPT = Path(__file__).with_name("container_process.py")


def container_launch(run: Run, given: Mapping[str, str], port: int) -> Launch:
    """The launch of a process that lasts as long as its container, prints what that prints, and passes requests on.

    ``given`` is the service's own environment, ``port`` the one that the image listens on.
    """
    assert run.pool is not None and run.pool.engine is not None and run.config.swr_location is not None
    engine = run.pool.engine
    asked = {
        "address": engine.address,
        "network": engine.network,
        "port": port,
        "image": run.config.swr_location,
        "container": container_of(run, given, port),
    }
    environment = server_environment(os.environ, {}) | {ASKED: json.dumps(asked)}
    return Launch((sys.executable, "-P", str(_SCRIPT)), _SCRIPT.parent, environment)


def container_of(run: Run, given: Mapping[str, str], port: int) -> dict[str, Any]:
    """The body of Docker's request for the container of an instance: of its flavor's size, and closed like a pod."""
    assert run.pool is not None and run.pool.engine is not None
    flavor = run.flavor
    environment = instance_environment({}, given, Limits.of(flavor)) | {"PORT": str(port)}
    memory = math.ceil(flavor.memory_gb * (1 << 30))
    return {
        "Image": run.config.swr_location,
        "Env": [f"{name}={value}" for name, value in environment.items()],
        "User": f"{USER}:{USER}",
        "Labels": {RUN_LABEL: run.task_id},
        "ExposedPorts": {f"{port}/tcp": {}},
        "HostConfig": {
            "NetworkMode": run.pool.engine.network,
            "NanoCpus": round(flavor.cpu * 1e9),
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": PROCESSES,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "Privileged": False,
            "ReadonlyRootfs": run.pool.model_root != "writable",
            "Tmpfs": {"/tmp": "rw,exec,nosuid,nodev,mode=1777"},  # noqa: S108  the container's own
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "local", "Config": {"max-size": "10m", "max-file": "2"}},
            "DeviceRequests": [{"Count": flavor.accelerators, "Capabilities": [["gpu"]]}]
            if flavor.accelerators
            else [],
        },
    }
