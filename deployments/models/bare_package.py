"""``thresher models init MODEL``: writes the package that a bare model is made into, so that it can be changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from deployments.models.new_package import SPECIFICATION, NewPackage, next_commands, service_name, specification_text
from deployments.models.package_source import of_the_call
from tasks.clients.packages.bare_models import write_package
from tasks.clients.storage.storage import open_storage
from tasks.domain.config_file import parse_config
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.mapping import LEAF_TYPES, walk
from tasks.domain.package import PackageConfig
from tasks.domain.paths import parse_address
from tasks.domain.settings import read_settings
from tasks.domain.unexpected import cause_of_library
from tasks.engine.checking import ANSWER_SECONDS
from tasks.engine.loop import on_engine_loop
from tasks.prefect_side.storage_keys import storage_keys

EXAMPLE = "example/rows.csv"
_CELLS = {"string": "text", "boolean": "true"}
"""An example of a cell by its type; of numbers, 0."""


@on_engine_loop
async def init_from_model(model: str, folder: Path | None = None) -> NewPackage:
    """Write the package of a bare model at a path or address, with an example row and a specification.

    ``folder`` must be new or empty; by default it is named after the model. Raises SpecificationError, StorageError,
    and ModelServerError if the environment in which the model is described cannot be made.
    """
    try:
        address = parse_address(model)
    except ValueError as error:
        raise SpecificationError([Problem("FOLDER", model, str(error))]) from None
    target = folder or Path(Path(address.name).stem or "model")
    settings = read_settings()
    async with open_storage(settings, await storage_keys(settings), ANSWER_SECONDS) as storage:
        try:
            await write_package(storage, address, target, settings)
        except SpecificationError as error:
            raise of_the_call(error) from None
    try:
        row = await asyncio.to_thread(_add_example, target)
        files = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    except OSError as error:
        raise SpecificationError([Problem("--to", str(target), cause_of_library(error))]) from None
    return NewPackage(target, tuple(files), next_commands(target, ("--row", row)))


def _add_example(package: Path) -> str:
    """Add an example row and a specification to a package; the row. Raises OSError."""
    row = _row(parse_config((package / "config.json").read_bytes(), "config.json"))
    example = package / EXAMPLE
    example.parent.mkdir()
    example.write_text(f"{row}\n", encoding="utf-8")
    (package / SPECIFICATION).write_text(specification_text(service_name(package)), encoding="utf-8")
    return row


def _row(config: PackageConfig) -> str:
    kinds = [kind for _, _, kind in walk(config.api(None).request.data) if kind in LEAF_TYPES]
    return ",".join(_CELLS.get(str(kind), "0") for kind in kinds)
