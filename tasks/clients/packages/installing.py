"""Installation of a model package's requirements in its environment, in their order, as the original platform's pip."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.clients.packages.pythons import Interpreter
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.clients.storage.temporary_names import unique_name
from tasks.domain.environment import installer_environment
from tasks.domain.errors import ModelServerError
from tasks.domain.install_output import is_of_network, is_of_old_metadata, reason_of
from tasks.domain.paths import redact

OLD_PYTHON = (3, 8)
"""Before it, what uv cannot install is left to pip: packages of that time are built in ways that uv does not know."""
_COMPILED = (3, 7)
"""uv compiles byte code with this Python and later ones only."""
_PIN = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)\s*(==|>=|<=)\s*([A-Za-z0-9.!+_-]+?)(?:\.\*)?\s*\Z")
_TORCH = re.compile(r"torch(vision|audio)?\b", re.IGNORECASE)


@dataclass(frozen=True)
class Rules:
    """How requirements are installed.

    ``loosen``: a pin that cannot be had becomes the nearest version that can. ``offline``: only what is cached.
    ``cpu``: builds of torch without the libraries of accelerators. ``runtime`` is the package's, for messages.
    """

    loosen: bool = False
    offline: bool = False
    cpu: bool = False
    runtime: str = ""


class _Failed(Exception):
    """A command has failed; ``output`` is what it printed."""

    def __init__(self, command: str, status: int, output: str) -> None:
        super().__init__(output)
        self.command = command
        self.status = status
        self.output = output


class Installer:
    """Makes one environment. ``home`` holds its log files, ``folder`` is the package's."""

    def __init__(self, made: Path, folder: Path, home: Path, interpreter: Interpreter, rules: Rules) -> None:
        self._made = made
        self._folder = folder
        self._home = home
        self._interpreter = interpreter
        self._rules = rules
        self._own, self._secret = installer_environment(os.environ)
        self._has_pip = False
        self.notes: list[str] = []
        """What was done otherwise than the package says."""

    async def make(self, steps: Sequence[Sequence[str]]) -> None:
        """Make the environment, and install the steps in order. Raises ModelServerError."""
        try:
            await self._uv("venv", "--quiet", "--no-project", "--python", self._interpreter.path, str(self._made))
            for step in steps:
                await self._install(step)
        except _Failed as failed:
            raise self._error("environment could not be made", failed) from None

    async def _install(self, step: Sequence[str]) -> None:
        try:
            await self._by_uv(step)
            return
        except _Failed as failed:
            if any(argument.startswith("-") for argument in step):
                if not self._is_for_pip(failed):
                    raise
                await self._by_pip(step, failed)
                return
        # Together they contradict each other, or one of them cannot be had: one after the other, the last one wins.
        for requirement in step:
            await self._install_one(requirement)

    async def _install_one(self, requirement: str) -> None:
        try:
            try:
                await self._by_uv([requirement])
            except _Failed as failed:
                if not self._is_for_pip(failed):
                    raise
                await self._by_pip([requirement], failed)
        except _Failed as failed:
            if self._rules.loosen and await self._loosened(requirement, failed):
                return
            on = f"{self._interpreter} (runtime {self._rules.runtime})" if self._rules.runtime else self._interpreter
            error = self._error(f"dependency {requirement} cannot be installed on {on}", failed)
            if _PIN.match(requirement) and not self._rules.loosen and not is_of_network(failed.output):
                error = ModelServerError(f"{error} With loosen: true in the service, the nearest version is taken.")
            raise error from None

    def _is_for_pip(self, failed: _Failed) -> bool:
        return not is_of_network(failed.output) and (
            self._interpreter.version < OLD_PYTHON or is_of_old_metadata(failed.output)
        )

    async def _loosened(self, requirement: str, failed: _Failed) -> bool:
        pin = _PIN.match(requirement)
        if pin is None:
            return False
        name, _, version = pin.groups()
        lowest = ("--resolution", "lowest-direct")
        for tried in ([f"{name}>={version}", *lowest], [f"{name}<={version}"], [name]):
            try:
                # Ready-made ones only: what lies near an old version would have to be built, and fail likewise.
                await self._by_uv(["--only-binary", ":all:", *tried])
            except _Failed:
                continue
            self.notes.append(
                f"{requirement} cannot be installed on {self._interpreter}: {await self._version_of(name)} was taken "
                f"({reason_of(failed.output)})"
            )
            return True
        return False

    async def _version_of(self, name: str) -> str:
        output = await self._uv("pip", "freeze", "--python", self._python)
        plain = re.sub(r"[-_.]+", "-", name).lower()
        lines = (line for line in output.splitlines() if re.sub(r"[-_.]+", "-", line).lower().startswith(f"{plain}=="))
        return next(lines, name)

    @property
    def _python(self) -> str:
        return str(self._made / "bin" / "python")

    async def _by_uv(self, step: Sequence[str]) -> None:
        options = ["--quiet", "--link-mode", "copy", "--python", self._python]
        if self._interpreter.version >= _COMPILED:
            options.append("--compile-bytecode")
        if self._rules.offline:
            options.append("--offline")
        if self._secret:  # the build of a package runs with uv's own environment variables
            options.append("--no-build")
        if self._rules.cpu and not self._rules.offline and any(_TORCH.match(one) for one in step):
            try:
                await self._uv("pip", "install", *options, "--torch-backend", "cpu", *step)
                return
            except _Failed as failed:
                self._note(f"no build of torch without CUDA's libraries could be had ({reason_of(failed.output)})")
        await self._uv("pip", "install", *options, *step)

    async def _by_pip(self, step: Sequence[str], failed: _Failed) -> None:
        if not self._has_pip:
            await self._by_uv(["pip", "setuptools", "wheel"])
            self._has_pip = True
        options = ["--disable-pip-version-check", "--no-input", "--quiet"]
        if self._rules.offline:
            options.append("--no-index")
        if self._secret:
            options += ["--only-binary", ":all:"]
        index = self._own.get("UV_DEFAULT_INDEX") or self._own.get("UV_INDEX_URL")
        given = {"PIP_INDEX_URL": index} if index and "PIP_INDEX_URL" not in self._own else {}
        try:
            await self._run([self._python, "-m", "pip", "install", *options, *step], "pip install", given)
        except _Failed as by_pip:
            # pip only knows that there is nothing; uv says why.
            raise (failed if "No matching distribution" in by_pip.output else by_pip) from None

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    async def _uv(self, *arguments: str) -> str:
        from uv import find_uv_bin

        return await self._run([find_uv_bin(), *arguments], f"uv {' '.join(arguments[:2])}", {"VIRTUAL_ENV": ""})

    async def _run(self, command: Sequence[str], name: str, given: dict[str, str]) -> str:
        log = self._home / f"uv-{unique_name()}.log"
        process = await GuardedProcess.start(command, folder=self._folder, environment=self._own | given, log=log)
        try:
            status = await process.ended()
            output = redact(log.read_text(errors="replace")).strip()
        finally:
            await process.stop()
            log.unlink(missing_ok=True)
        if status != 0:
            raise _Failed(name, status, output)
        return output

    def _error(self, what: str, failed: _Failed) -> ModelServerError:
        reason = reason_of(failed.output)
        if not reason:
            reason = f"It printed nothing: perhaps there is no room in {self._home} (THRESHER_CACHE)."
        why = ""
        if self._secret and "install" in failed.command:
            why = f" Packages are not built from source while {self._secret} holds a password, which they would read."
        return ModelServerError(
            f"The model package's {what}: {reason} ({failed.command} ended with {failed.status}){why}"
        )
