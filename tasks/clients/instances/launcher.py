"""The life of one instance: prepare it, start it, wait for its health, read its log, stop it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tasks.clients.model_http.health import NOT_ALLOWED, ask_health
from tasks.clients.packages.environments import SERVING, environment
from tasks.clients.packages.installing import Rules
from tasks.clients.packages.package_environment import package_environment
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.clients.processes.output_drain import last_bytes
from tasks.clients.processes.ports import HOST, belongs_to_another, free_port
from tasks.domain.errors import ModelServerError
from tasks.domain.instance import Launch, Limits, instance_environment, server_environment
from tasks.domain.masking import Masker
from tasks.domain.package import BOOT_FILE, REQUIREMENTS, Health, PackageConfig, Serving
from tasks.domain.paths import redact
from tasks.domain.settings import Settings

SCRATCH = "SCRATCH_FOLDER"
"""Variable that tells a model server a folder in which it may write: the package's is shared by all instances."""
_LONGEST_TMPDIR = 107 - len("/pymp-12345678/listener-12345678")
"""Programs make sockets in TMPDIR, whose paths have at most 107 bytes: here the longest that Python makes."""
_TAIL_BYTES = 4000
_TAIL_LINES = 20
_BEFORE_BYTES = 64 << 10
PORT_TRIES = 5
_TRUSTED = {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
"""Lets PyTorch 2.6 and later load pickled models, as it did before: the package's own code runs next to them anyway."""
_FIRST_PERIOD_SECONDS = 0.05


async def prepare(
    serving: Serving,
    config: PackageConfig,
    folder: Path,
    name: str,
    given: Mapping[str, str],
    settings: Settings,
    limits: Limits | None = None,
    *,
    loosen: bool = False,
    accelerators: int = 0,
) -> Launch:
    """Make the package's isolated environment and return the launch of an instance of the model ``name``.

    ``given`` is the service's own environment, ``limits`` and ``accelerators`` are those of its flavor. Raises
    ModelServerError if the environment cannot be made.
    """
    own = server_environment(os.environ, {})
    if serving == "boot-file":
        if (folder / REQUIREMENTS).is_file():
            rules = Rules(offline=settings.offline, cpu=not accelerators)
            made = await environment([["-r", REQUIREMENTS]], folder, settings.cache, rules=rules)
            own |= _activated(made, own)
        return Launch(("sh", BOOT_FILE), folder, instance_environment(own, given, limits), limits=limits)
    made, warnings = await package_environment(config, folder, settings, loosen=loosen, cpu=not accelerators)
    own |= _activated(made, own) | _TRUSTED | {"MODEL_NAME": name, "MODEL_CONFIG": config.for_server()}
    command = (str(made / "bin" / "python"), str(SERVING / "server.py"))
    variables = instance_environment(own, given, limits)
    return Launch(command, folder, variables, limits=limits, warnings=tuple(warnings))


def _activated(made: Path, own: Mapping[str, str]) -> dict[str, str]:
    return {"VIRTUAL_ENV": str(made), "PATH": f"{made / 'bin'}{os.pathsep}{own.get('PATH', os.defpath)}"}


class Server:
    """One running model server process."""

    def __init__(self, process: GuardedProcess, port: int, launch: Launch, log: Path) -> None:
        self._process = process
        self._launch = launch
        self._masker = Masker(launch.secrets)
        self._log = log
        self._port = port
        self.health_detail = "not asked yet"

    @classmethod
    async def start(cls, launch: Launch, log: Path) -> Server:
        """Start the process on a free port; its output is appended to ``log``.

        It gets an empty folder of its own next to ``log``, to write in, which the caller removes together with the
        log. If this process is killed, both are removed as well.
        """
        scratch = log.with_name(f"{log.stem}.tmp")
        await asyncio.to_thread(_make_empty, scratch)
        named = launch.environment.get("TMPDIR") not in (None, os.environ.get("TMPDIR"))  # by the service itself
        too_long = len(os.fsencode(scratch)) > _LONGEST_TMPDIR
        variables = (SCRATCH,) if named or too_long else (SCRATCH, "TMPDIR")
        environment = {**launch.environment, **dict.fromkeys(variables, str(scratch))}
        launch = replace(launch, environment=environment, scratch=scratch)
        port = free_port()
        return cls(await _started(launch, port, log), port, launch, log)

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{HOST}:{self._port}"

    async def ask(self, health: Health) -> str:
        """Ask for its health once; empty if healthy, else the reason."""
        return await ask_health(self.url, health.url, health.timeout_seconds, self._launch.headers)

    async def ready(self, health: Health) -> None:
        """Wait until the server is healthy. Raises ModelServerError, with its last output, if it ends first.

        If it ends because another process has taken its port, it is restarted on another one.

        It is asked at once, then at intervals that grow to the package's period, so a fast start is noticed early. A
        failure threshold set by the package bounds the time (period x threshold after the initial delay); otherwise
        only the caller does.
        """
        for tries_left in reversed(range(PORT_TRIES)):
            if await self._healthy(health):
                return
            if not tries_left or not await self._port_is_taken():
                break
            await self._process.ended()
            self._port = free_port()
            self._process = await _started(self._launch, self._port, self._log)
        raise ModelServerError(f"The model server ended with status {_named(await self.ended())}.{self.tail()}")

    async def _healthy(self, health: Health) -> bool:
        """Wait until the server is healthy; False if it ends first."""
        loop = asyncio.get_running_loop()
        bound = None
        if "failure_threshold" in health.model_fields_set:
            bound = health.initial_delay_seconds + health.period_seconds * health.failure_threshold
        start = loop.time()
        period = _FIRST_PERIOD_SECONDS
        while self.running:
            detail = await self.ask(health)
            if detail in NOT_ALLOWED:
                raise ModelServerError(
                    f"The model server answered {detail} to GET {health.url}: the service's headers should have what "
                    f"it asks for (Authorization ...).{self.tail()}"
                )
            if not detail:
                if not await self._port_is_taken():
                    return True
                detail = f"another process listens on port {self._port}"
            self.health_detail = detail
            if bound is not None and loop.time() - start > bound:
                raise ModelServerError(
                    f"The model server did not become healthy within {bound:g} s (initial_delay_seconds + "
                    f"period_seconds x failure_threshold of its config.json; GET {health.url}: {self.health_detail})."
                    f"{self.tail()}"
                )
            with suppress(TimeoutError):
                async with asyncio.timeout(period):
                    await self.command_ended()
            period = min(period * 1.3, health.period_seconds)
        return False

    async def _port_is_taken(self) -> bool:
        return await asyncio.to_thread(belongs_to_another, self._port, self._process.pid)

    @property
    def running(self) -> bool:
        """Whether the process runs."""
        return self._process.running

    async def command_ended(self) -> None:
        """Wait until the process has ended."""
        await self._process.command_ended()

    async def ended(self) -> int:
        """Wait until the process and everything it started have ended; its exit status."""
        return await self._process.ended()

    async def stop(self) -> None:
        """End the process and everything it started."""
        await self._process.stop()

    def tail(self) -> str:
        """The server's last output, or that it printed nothing, as the end of a message."""
        # A secret is masked only if all of it is read, so read from before the part that is shown.
        output = last_bytes(self._log, _TAIL_BYTES + _BEFORE_BYTES)
        text = self._masker.block(output.decode("utf-8", "replace"))
        lines = [line for line in text[-_TAIL_BYTES:].strip().splitlines() if line.strip()][-_TAIL_LINES:]
        if not lines:
            return " It printed nothing."
        detail = "\n".join(f"    {redact(line)}" for line in lines)
        return f" It printed last:\n{detail}"


def _make_empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)


def _named(status: int) -> str:
    """An exit status; with the signal's name, if it was one that ended the process."""
    try:
        return f"{status} ({signal.Signals(status - 128).name})"
    except ValueError:
        return str(status)


async def _started(launch: Launch, port: int, log: Path) -> GuardedProcess:
    environment = {**launch.environment, "PORT": str(port)}
    return await GuardedProcess.start(
        launch.command,
        folder=launch.folder,
        environment=environment,
        log=log,
        limits=launch.limits,
        log_bytes_per_second=launch.log_bytes_per_second,
        scratch=launch.scratch,
    )
