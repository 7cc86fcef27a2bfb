"""Which package an argument of ``thresher models`` means: a folder, an address, or a model in the store."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from tasks.clients.packages.bare_models import find_bare_model, made_package
from tasks.clients.packages.model_store import ModelStore
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.paths import Address, parse_address
from tasks.domain.running_address import is_running_model
from tasks.domain.service import is_package_address
from tasks.domain.settings import Settings

SOURCE = "my-models"
_CALLED = {"model": "PATH", "model_version": "--model-version"}


@dataclass(frozen=True)
class PackageSource:
    """A package, the name under which its model is served, and its version in the store."""

    folder: Address
    name: str
    version: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.folder.scheme == "local"


async def find_package(
    storage: Storage, settings: Settings, given: str, version: str | None = None, source: str = SOURCE
) -> PackageSource:
    """The package that ``given`` names; an existing folder takes precedence over a model in the store.

    Raises SpecificationError, whose problems are those of the call, if there is none.
    """
    if is_running_model(given):
        raise SpecificationError([Problem("PATH", given, "should be a package; a server that runs has none to check")])
    if is_package_address(given) or (version is None and Path(given).exists()):
        return await _of_address(storage, settings, given, version)
    try:
        picked = await ModelStore(storage, settings.model_store).pick(source, given, version)
    except SpecificationError as error:
        raise of_the_call(error) from None
    return PackageSource(parse_address(picked.folder), picked.model, picked.version)


async def _of_address(storage: Storage, settings: Settings, given: str, version: str | None) -> PackageSource:
    if version is not None:
        raise SpecificationError([Problem("--model-version", version, "is for models of the model store")])
    try:
        folder = parse_address(given)
    except ValueError as error:
        raise SpecificationError([Problem("PATH", given, str(error))]) from None
    try:
        bare = await find_bare_model(storage, folder)
        if bare is not None:
            made = await made_package(storage, bare, settings)
            return PackageSource(parse_address(str(made)), Path(folder.name).stem or "model")
    except SpecificationError as error:
        raise of_the_call(error) from None
    if folder.scheme == "local":
        if not await asyncio.to_thread(Path(folder.path).is_dir):
            raise SpecificationError([Problem("PATH", given, "there is no such folder")])
    else:
        try:
            if not await storage.top(folder):
                raise SpecificationError([Problem("PATH", given, "there is nothing below this address")])
        except ObjectError as error:
            raise SpecificationError([Problem("PATH", given, error.cause)]) from None
    return PackageSource(folder, folder.name or "model")


def of_the_call(error: SpecificationError) -> SpecificationError:
    """The same problems for a command without a specification."""

    def called(one: Problem) -> Problem:
        name = _CALLED.get(one.field)
        return Problem("", None, str(one)) if name is None else Problem(name, one.value, one.expected)

    return SpecificationError([called(one) for one in error.problems])
