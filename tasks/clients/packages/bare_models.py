"""Bare models: a file or folder of a model without a package becomes a package, cached by content."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tasks.clients.packages.describing import BARE, describe
from tasks.clients.packages.environments import SERVING
from tasks.clients.packages.package_files import copy_to_folder, package_files
from tasks.clients.packages.packages import complete, is_whole, local_copy, partial_copy
from tasks.clients.packages.pythons import own_interpreter
from tasks.clients.packages.uses import use
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage
from tasks.domain.bare_models import (
    BARE_MODELS,
    HEAD_BYTES,
    MADE,
    MLMODEL,
    SAVED_MODEL,
    Format,
    could_be_model,
    format_of,
    is_aside,
    is_model_file_name,
    is_of_package,
    package_config,
)
from tasks.domain.errors import Problem, SpecificationError, StorageError
from tasks.domain.model_file_versions import MAX_BYTES, of_pickle, of_skops, of_xgboost
from tasks.domain.package import CUSTOM_SERVICE, REQUIREMENTS, PackageConfig
from tasks.domain.paths import Address
from tasks.domain.settings import Settings
from tasks.domain.unexpected import cause_of_library

_CONFIG = "config.json"
_PYTHON = re.compile(r"^python_version: *['\"]?(\d+\.\d+)", re.MULTILINE)
_NAME = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True)
class BareModel:
    """A bare model on any storage: all of ``folder``, or one file in it."""

    format: Format
    folder: Address
    file: str = ""

    @property
    def address(self) -> Address:
        """Its file, else its folder."""
        return self.folder.child(self.file) if self.file else self.folder


async def find_bare_model(storage: Storage, address: Address) -> BareModel | None:
    """The bare model at an address; None if a package is there, or nothing.

    Raises SpecificationError for a file in no known format, or a folder with more than one model.
    """
    try:
        if await storage.is_file(address):
            above = address.path[: -len(address.name)].rstrip("/")
            parent = replace(address, path=above if above or address.bucket else "/")
            if address.name in (MLMODEL, SAVED_MODEL):
                return BareModel("MLflow" if address.name == MLMODEL else "saved_model", parent)
            return BareModel(await _format(storage, address), parent, address.name)
        names = set(await storage.top(address))
        if not names and is_model_file_name(address.name):
            raise SpecificationError([Problem("model", str(address), "there is no such file")])
        if is_of_package(names):
            return None
        if await storage.is_file(address.child("model/config.json")):
            return None
        if MLMODEL in names:
            return BareModel("MLflow", address)
        for name in ("", *sorted((one for one in names if one.rstrip("/").isdigit()), reverse=True)):
            below = f"{name.rstrip('/')}/{SAVED_MODEL}".lstrip("/")
            if await storage.is_file(address.child(below)):
                return BareModel("saved_model", address)
        return await _only_model(storage, address, sorted(names))
    except ObjectError as error:
        raise StorageError(f"The model {address} cannot be read: {error.cause}") from None


async def _only_model(storage: Storage, folder: Address, names: Sequence[str]) -> BareModel | None:
    found = [name for name in names if could_be_model(name) and await storage.is_file(folder.child(name))]
    graphs = [name for name in found if name.endswith(".onnx")]
    if len(graphs) == 1:  # whatever lies beside it may be its weights
        return BareModel("ONNX", folder)
    if not found:
        return None
    others = [name for name in names if name not in found and not is_aside(name)]
    if len(found) > 1 or others:
        expected = (
            f"has {', '.join([*found, *others][:5])}: a folder of a bare model holds one model file only; name "
            "the file, or write a package"
        )
        raise SpecificationError([Problem("model", str(folder), expected)])
    kind = await _format(storage, folder.child(found[0]))
    return BareModel(kind, folder, "" if REQUIREMENTS in names else found[0])


async def _format(storage: Storage, address: Address) -> Format:
    head = b""
    async for chunk in storage.stream(address):
        head = chunk[:HEAD_BYTES]
        break
    try:
        return format_of(address.name, head)
    except ValueError as error:
        raise SpecificationError([Problem("model", str(address), str(error))]) from None


async def made_package(storage: Storage, model: BareModel, settings: Settings, *, loosen: bool = False) -> Path:
    """The folder of the package that a bare model is made into; made once for the same content.

    The model is described in its own isolated environment, never in this process. ``loosen``: of the service. Raises
    SpecificationError if it has no usable signature, StorageError if it cannot be read, ModelServerError if its
    environment cannot be made.
    """
    only = (model.file,) if model.file else ()
    source = await local_copy(storage, str(model.folder), settings.cache, only)
    try:
        digest = await asyncio.to_thread(_digest, source, model)
        made = settings.cache / "packages" / f"bare-{digest}"
        use(made)
        if await asyncio.to_thread(is_whole, made):
            return made
        with partial_copy(made) as partial:
            file = await asyncio.to_thread(_fill, partial, source, model)
            await _configure(partial, file, model, settings, loosen)
            await asyncio.to_thread(complete, partial, made)
    except OSError as error:
        raise StorageError(f"No package can be made of {model.address}: {cause_of_library(error)}.") from None
    return made


async def write_package(storage: Storage, address: Address, target: Path, settings: Settings) -> None:
    """Write the package that the bare model at an address is made into to a folder, which must be empty or missing.

    Raises as :func:`made_package`; SpecificationError if there is no bare model, or something in the folder.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise SpecificationError([Problem("--to", str(target), "should be an empty folder, or not be there yet")])
    model = await find_bare_model(storage, address)
    if model is None:
        raise SpecificationError([Problem("FOLDER", str(address), f"should be a bare model: {BARE_MODELS}")])
    made = await made_package(storage, model, settings)
    try:
        files = [one for one in package_files(made) if not one.name.startswith(".")]
        await asyncio.to_thread(copy_to_folder, files, target)
    except OSError as error:
        raise StorageError(f"The package cannot be written to {target}: {cause_of_library(error)}.") from None


def _digest(source: Path, model: BareModel) -> str:
    """A hash of the model, and of the code that its package is made with."""
    digest = hashlib.sha256(model.format.encode())
    root = source / model.file if model.file else source
    paths = [root] if model.file else [source / one.name for one in package_files(source) if one.kind == "file"]
    for path in [*paths, *sorted(BARE.glob("*.py")), *sorted((SERVING / "model_service").glob("*.py"))]:
        with open(path, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        name = path.relative_to(source) if path.is_relative_to(source) else path.name
        digest.update(f"\n{name} {content}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:24]


def _fill(package: Path, source: Path, model: BareModel) -> Path:
    """Put model and service into a new package; returns the model's file or, if it is all of a folder, the folder."""
    shutil.copyfile(BARE / MADE[model.format].service, package / CUSTOM_SERVICE)
    if not model.file:
        copy_to_folder([one for one in package_files(source) if not one.name.startswith(".")], package)
        only = [path for path in sorted(package.iterdir()) if could_be_model(path.name)]
        return only[0] if model.format not in ("ONNX", "MLflow", "saved_model") and only else package
    # As a text it would not count as a model file (infra/serving/builtin_server/model_path.py).
    name = f"{model.file[:-4]}.lgb" if model.file.lower().endswith(".txt") else model.file
    shutil.copyfile(source / model.file, package / name)
    return package / name


async def _configure(package: Path, file: Path, model: BareModel, settings: Settings, loosen: bool) -> None:
    """Write config.json, from what the model says of itself in its environment."""
    named, runtime = await asyncio.to_thread(_requirements, package, file, model)
    made = MADE[model.format]
    plain = PackageConfig.model_validate(package_config(made, model.format, named, runtime=runtime))
    (package / _CONFIG).write_text("{}")  # so that nothing takes it for a model
    signature = await describe(model.format, model.address, file, plain, package, settings, loosen=loosen)
    config: dict[str, Any] = package_config(made, model.format, named, signature, runtime)
    (package / _CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _requirements(package: Path, file: Path, model: BareModel) -> tuple[list[str], str]:
    """The requirements of the package, with the versions that the model names, and its runtime."""
    named: list[str] = []
    newest = None
    runtime = ""
    head = b""
    if file.is_file():
        with open(file, "rb") as read:
            head = read.read(MAX_BYTES)
    try:
        if model.format == "scikit-learn":
            named, newest = of_pickle(head)
        elif model.format == "skops":
            named, newest = of_skops(head)
        elif model.format == "XGBoost":
            named = of_xgboost(head)
            if not named and file.stat().st_size > MAX_BYTES:
                with open(file, "rb") as read:
                    read.seek(-HEAD_BYTES, 2)
                    named = of_xgboost(read.read())  # it is written last
    except ValueError as error:
        raise SpecificationError([Problem("model", str(model.address), str(error))]) from None
    if model.format == "MLflow" and (match := _PYTHON.search((package / MLMODEL).read_text("utf-8", "replace"))):
        runtime = f"python{match[1]}" if "loader_module: mlflow.pyfunc.model" in match.string else ""
    if newest is not None and newest < own_interpreter().version:
        runtime = f"python{newest[0]}.{newest[1]}"
    listed = package / REQUIREMENTS
    given = listed.read_text("utf-8", "replace").lower().splitlines() if listed.is_file() else []
    there = {found[0].lower() for one in [*named, *given] if (found := _NAME.match(one.strip()))}
    return [*named, *(one for one in MADE[model.format].requirements if one not in there)], runtime
