"""The environment of a model package: which Python, which packages, in which order."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tasks.clients.packages.environments import SERVING, environment, notes_of
from tasks.clients.packages.installing import Rules
from tasks.clients.packages.package_code import code_needs, read_base_lists
from tasks.clients.packages.pythons import interpreter_for
from tasks.domain.package import REQUIREMENTS, PackageConfig
from tasks.domain.runtime import parse_runtime
from tasks.domain.settings import Settings


async def package_environment(
    config: PackageConfig, folder: Path, settings: Settings, *, loosen: bool, cpu: bool
) -> tuple[Path, list[str]]:
    """The environment in which the built-in model server serves the package in ``folder``, and warnings.

    Installed in this order: what the server uses, the package's dependencies, its requirements.txt, and what its code
    imports of the base list of its type. ``loosen``: of the service; ``cpu``: the flavor has no accelerators. Raises
    ModelServerError if the Python or a package cannot be had.
    """
    runtime = parse_runtime(config.runtime)
    loosen = loosen or settings.loosen
    interpreter, warnings = await interpreter_for(runtime, settings.pythons, loosen=loosen)
    steps = [["-r", str(SERVING / "requirements.txt")], *config.requirements]
    if (folder / REQUIREMENTS).is_file():
        steps.append(["-r", REQUIREMENTS])
    needs = await asyncio.to_thread(code_needs, folder, config, read_base_lists(settings.base_packages))
    if needs.base:
        steps.append(needs.base)
    rules = Rules(loosen=loosen, offline=settings.offline, cpu=cpu, runtime=runtime.text)
    made = await environment(steps, folder, settings.cache, interpreter, rules)
    return made, [*warnings, *notes_of(made)]
