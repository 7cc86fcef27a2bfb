"""Asks a bare model for its signature, in its own isolated environment: reading some formats runs code of the file."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path

from tasks.clients.packages.environments import SERVING
from tasks.clients.packages.package_environment import package_environment
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.clients.processes.output_drain import last_bytes
from tasks.clients.processes.scratch_folders import scratch_folder
from tasks.domain.bare_models import Format, Signature, parse_signature
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.instance import instance_environment, server_environment
from tasks.domain.package import PackageConfig
from tasks.domain.paths import Address, redact
from tasks.domain.plain_text import plain_line
from tasks.domain.settings import Settings

BARE = SERVING / "bare_models"
"""The services of bare models, and the program that describes them."""
_SECONDS = 300.0
_MAX_BYTES = 4 << 20
_TAIL_BYTES = 2000


async def describe(
    kind: Format,
    address: Address,
    file: Path,
    config: PackageConfig,
    package: Path,
    settings: Settings,
    *,
    loosen: bool,
) -> Signature:
    """The signature of a model, whose package has everything but its APIs yet.

    Raises SpecificationError if it has none that can be used, ModelServerError if its environment cannot be made.
    """
    made, _ = await package_environment(config, package, settings, loosen=loosen, cpu=True)
    scratch = scratch_folder()
    try:
        result, log = scratch / "signature.json", scratch / "output.log"
        command = [str(made / "bin" / "python"), "-I", str(BARE / "describe.py"), kind, str(file), str(result)]
        own = server_environment(os.environ, {"TMPDIR": str(scratch)})
        process = await GuardedProcess.start(
            command, folder=package, environment=instance_environment(own, {}, None), log=log
        )
        try:
            async with asyncio.timeout(_SECONDS):
                status = await process.ended()
        except TimeoutError:
            raise _refused(address, f"cannot be described within {_SECONDS:g} s") from None
        finally:
            await process.stop()
        if not result.is_file() or result.stat().st_size > _MAX_BYTES:
            lines = last_bytes(log, _TAIL_BYTES).decode("utf-8", "replace").strip().splitlines() or ["nothing"]
            raise _refused(address, f"cannot be described (status {status}); printed last: {lines[-1]}")
        return _signature(address, kind, result.read_bytes())
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _signature(address: Address, kind: Format, described: bytes) -> Signature:
    try:
        found = json.loads(described)
        if isinstance(found, dict) and "refused" in found:
            raise _refused(address, str(found["refused"]))
        if isinstance(found, dict) and "failed" in found:
            failed = str(found["failed"])
            raise _refused(address, f"cannot be read as a model of {kind}: {failed}{_cure(failed)}")
        return parse_signature(found)
    except (ValueError, RecursionError) as error:
        raise _refused(address, str(error)) from None


def _cure(failed: str) -> str:
    if failed.startswith("ModuleNotFoundError"):
        return "; put a requirements.txt beside it, in a folder that holds both, or write a package"
    return ""


def _refused(address: Address, expected: str) -> SpecificationError:
    return SpecificationError([Problem("model", str(address), plain_line(redact(expected)))])
