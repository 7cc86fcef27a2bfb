"""The model servers of a run in one process: preparation, start, connections and secrets."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from tasks.clients.instances import launcher
from tasks.clients.instances.model_container import container_launch
from tasks.clients.instances.running_server import RunningServer
from tasks.clients.instances.sidecar import Sidecar
from tasks.clients.model_http.connections import Reuse
from tasks.clients.model_http.model_server import ModelClient
from tasks.clients.packages.bare_models import find_bare_model, made_package
from tasks.clients.packages.model_store import check_content
from tasks.clients.packages.packages import local_copy
from tasks.clients.processes.devices import DeviceLease, devices, lease
from tasks.clients.processes.scratch_folders import scratch_folder
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import StorageError
from tasks.domain.instance import GivenEnvironment, Launch, Limits
from tasks.domain.masking import Masker
from tasks.domain.paths import parse_address
from tasks.domain.run import Run
from tasks.domain.settings import Settings
from tasks.engine.server_output import ServerOutputs

_log = logging.getLogger(__name__)


class ModelServers:
    """The model servers of one run; ``environment`` supplies the service's values for them when they are needed."""

    def __init__(
        self,
        run: Run,
        settings: Settings,
        storage: Storage,
        environment: Callable[[], Awaitable[GivenEnvironment]],
        outputs: ServerOutputs,
    ) -> None:
        self._run = run
        self._settings = settings
        self._storage = storage
        self._keys = storage.secrets
        self._environment = environment
        self._outputs = outputs
        self._headers: Mapping[str, str] = {}
        self._launch: Launch | None = None
        self._preparing = asyncio.Lock()
        self._folder: Path | None = None
        self.masker = Masker(self._keys)
        """Masks the secrets of the run, the model's and the storage's, in texts from outside."""
        self.reuse = Reuse()
        """Whether a connection carries more than one request."""
        self.warnings: list[str] = []
        """How the servers are prepared otherwise than their package says."""
        self.health = run.config.health
        self.run_already = run.serving == "running"
        """Whether the servers are started and restarted elsewhere, at known addresses."""
        self.sidecar_port = settings.sidecar_port if run.serving == "sidecar" else None
        """Port of a server next to this process that is started and restarted elsewhere."""

    async def given(self) -> GivenEnvironment:
        """The service's values for its model servers; their secrets are masked from now on."""
        given = await self._environment()
        self.masker = Masker([*self._keys, *given.secrets])
        return given

    async def running(self) -> Sequence[RunningServer]:
        """The servers that run already, one per address. Raises ThresherError if their headers cannot be resolved."""
        given = await self.given()
        self._headers = given.headers
        run = self._run
        return [
            RunningServer(address, run.config.health, run.api.url, given.headers)
            for address in run.service.model.split()
        ]

    async def prepare(self) -> Launch:
        """The launch of every instance, prepared once. Raises ThresherError."""
        async with self._preparing:
            if self._launch is None and self._run.serving == "container":
                self._launch = await self._in_container()
            if self._launch is None:
                assert self._run.package is not None
                assert self._run.serving in ("built-in", "boot-file")
                folder = await self._package(self._run.package)
                if self._run.model_content and self._run.bare_model is None:
                    await check_content(self._storage, self._run.package, folder, self._run.model_content)
                given = await self.given()
                launch = await launcher.prepare(
                    self._run.serving,
                    self._run.config,
                    folder,
                    self._run.model_name,
                    given.values,
                    self._settings,
                    Limits.of(self._run.flavor),
                    loosen=self._run.service.loosen,
                    accelerators=self._run.flavor.accelerators,
                )
                self.warnings = [self.masker.line(warning) for warning in launch.warnings]
                for warning in self.warnings:
                    _log.warning("%s", warning)
                self._launch = self._of_service(launch, given)
            return self._launch

    async def _in_container(self) -> Launch:
        given = await self.given()
        return self._of_service(container_launch(self._run, given.values, self._settings.sidecar_port), given)

    def _of_service(self, launch: Launch, given: GivenEnvironment) -> Launch:
        """A launch with what the service and the administrator say of every model server."""
        self._headers = given.headers
        rate = self._settings.log_bytes_per_second
        return replace(launch, headers=given.headers, secrets=given.secrets, log_bytes_per_second=rate)

    async def _package(self, package: str) -> Path:
        """The package's folder on this machine. A bare model is made into the same package on each."""
        if self._run.bare_model is None:
            return await local_copy(self._storage, package, self._settings.cache)
        model = await find_bare_model(self._storage, parse_address(self._run.bare_model))
        if model is None:
            raise StorageError(f"The model {self._run.bare_model} is not there any more.")
        folder = await made_package(self._storage, model, self._settings, loosen=self._run.service.loosen)
        if folder.name != parse_address(package).name:
            raise StorageError(f"The model {self._run.bare_model} has changed since the run was validated.")
        return folder

    async def devices(self) -> DeviceLease:
        """Accelerators for one instance, reserved until they are closed. Raises ThresherError."""
        if self._run.serving == "container":  # Docker gives them to the container
            return DeviceLease((), ())
        there = devices(self._settings.devices)
        flavor = self._run.flavor
        return await lease(flavor.accelerators, there, self._settings.cache / "devices", flavor.name)

    async def sidecar(self, port: int) -> Sidecar:
        """The server next to this process. Raises ThresherError if the service's headers cannot be resolved."""
        self._headers = (await self.given()).headers
        return Sidecar(port, self._headers)

    def _own_folder(self) -> Path:
        if self._folder is None:  # as late as possible: a process killed earlier leaves no folder
            self._folder = scratch_folder()
        return self._folder

    def log_of(self, instance: int) -> Path:
        """The local file for the next output of an instance, which is followed, until it is published."""
        log = self._own_folder() / f"instance-{instance}.log"
        self._outputs.follow(instance, log, self.masker)
        return log

    def connect(self, url: str) -> ModelClient:
        """A client for the server at an address."""
        api = self._run.api
        settings = self._settings
        return ModelClient(
            url,
            api.method,
            api.url,
            self._run.service.request_timeout_seconds or settings.request_timeout_seconds,
            settings.max_answer_bytes,
            headers=self._headers,
            reuse=self.reuse,
            most_connections=self._run.service.max_concurrency,
            explains=self._run.serving == "built-in",
        )

    def remove_logs(self) -> None:
        """Remove the folder of model server output, and what the model servers have written next to it."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
