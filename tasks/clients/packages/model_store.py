"""The model store: one folder per source, model and version, on any storage.

``<store>/catalogues.json`` names the stores of others whose models are the subscriptions: they are only read.
``<store>/<source>/<model>/<version>/`` holds the package's files and ``version.json``, which records the state of the
version (Creating, Normal, Abnormal) and its reason.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.clients.packages.package_files import (
    COPY_COMPLETE,
    PackageFile,
    changed_file,
    content_seal,
    copy_to_folder,
    file_seals,
    opened,
    package_files,
    plain_files,
)
from tasks.clients.storage.failures import Missing, NoSpace, ObjectError, RequestRefused
from tasks.clients.storage.local_files import explain
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import ModelServerError, Problem, SpecificationError, StorageError, ThresherError
from tasks.domain.paths import Address, parse_address
from tasks.domain.unexpected import unusable_folder

VERSION_FILE = "version.json"
CATALOGUES = "catalogues.json"
LEFT_OUT = (VERSION_FILE, COPY_COMPLETE)
"""Files of a package that are not part of it."""
OWN = "my-models"
SUBSCRIBED = "my-subscriptions"
NAME = re.compile(r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}\Z")

State = Literal["Creating", "Normal", "Abnormal"]


class ModelVersion(BaseModel):
    """One version of a model in the store."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    source: str
    model: str
    version: str
    state: State
    reason: str = ""
    created_at: datetime
    folder: str
    files: dict[str, str] = Field(default_factory=dict, repr=False)
    """Seals of its files from registration; a run is refused if a file has changed."""

    @property
    def content(self) -> str:
        """A hash of the names and bytes of its files; empty if it was registered without seals."""
        lines = sorted(f"{name}\0{seal.rpartition(' ')[2]}\n" for name, seal in self.files.items())
        return hashlib.sha256("".join(lines).encode()).hexdigest() if lines else ""

    @property
    def order(self) -> tuple[tuple[int, int, str], ...]:
        """Sort key for natural order: 0.0.10 is newer than 0.0.9, and 1.0 than 1.0-rc1."""
        parts = re.findall(r"\d+|[A-Za-z]+", self.version)
        ranked = ((2, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
        return (*ranked, (1, 0, ""))


class ModelStore:
    """Reads and writes the store. Raises StorageError."""

    def __init__(self, storage: Storage, root: str) -> None:
        self._storage = storage
        self.root = parse_address(root)

    def folder(self, source: str, model: str, version: str) -> Address:
        """The folder of a version's package."""
        return self.root.child(f"{source}/{model}/{version}")

    async def versions(self, source: str, model: str) -> list[ModelVersion]:
        """All versions of a model, newest first; empty if there is no such model."""
        found = await self._own_versions(source, model)
        for catalogue in await self._catalogues(source):
            found += [one.model_copy(update={"source": source}) for one in await catalogue.versions(OWN, model)]
        return sorted(found, key=lambda one: one.order, reverse=True)

    async def _own_versions(self, source: str, model: str) -> list[ModelVersion]:
        found = []
        for version in await self._names(f"{source}/{model}"):
            folder = self.folder(source, model, version)
            file = folder.child(VERSION_FILE)
            try:
                raw = await self._storage.read(file)
            except Missing:
                continue
            except ObjectError as error:
                raise StorageError(f"{file} cannot be read: {error.cause}") from None
            try:
                found.append(ModelVersion.model_validate({**json.loads(raw), "folder": str(folder)}))
            except (TypeError, ValueError):  # not JSON, or not a version: no reason to hide the others
                broken = self._new(source, model, version)
                reason = f"its {VERSION_FILE} is broken; register the version again"
                found.append(broken.model_copy(update={"state": "Abnormal", "reason": reason}))
        return found

    async def models(self, source: str) -> list[str]:
        """Names of the models of a source."""
        names = {*await self._names(source)}
        for catalogue in await self._catalogues(source):
            names.update(await catalogue.models(OWN))
        return sorted(names)

    async def subscriptions(self) -> list[str]:
        """Addresses of the stores whose models are the subscriptions."""
        try:
            found = json.loads(await self._storage.read(self.root.child(CATALOGUES)))
            return [str(one) for one in found] if isinstance(found, list) else []
        except (Missing, ValueError):
            return []
        except ObjectError as error:
            raise StorageError(f"The model store {self.root} cannot be read: {error.cause}") from None

    async def subscribe(self, addresses: Sequence[str]) -> None:
        """Set the stores whose models are the subscriptions."""
        await self._write(self.root.child(CATALOGUES), json.dumps([*addresses], indent=2).encode())

    async def _catalogues(self, source: str) -> list[ModelStore]:
        if source != SUBSCRIBED:
            return []
        return [ModelStore(self._storage, one) for one in await self.subscriptions()]

    async def delete(self, version: ModelVersion) -> None:
        """Delete a version of this store; one that is deleted in part only is Abnormal."""
        await self.set_state(version, "Abnormal", "it is being deleted")
        folder = self.folder(version.source, version.model, version.version)
        try:
            await self._storage.delete(folder)
        except ObjectError as error:
            raise self._unwritable(error) from None
        if folder.scheme == "local":
            with suppress(OSError):  # the model has other versions
                Path(folder.path).parent.rmdir()

    async def _names(self, relative: str) -> list[str]:
        try:
            found = await self._storage.top(self.root.child(relative), only_folders=True)
            if not found:
                with suppress(RequestRefused):  # that is an answer of S3, too
                    # A web page, such as one to sign in, can look like an empty listing, but not like an object.
                    await self._storage.is_file(self.root.child(VERSION_FILE))
            return [*found]
        except Missing:  # the bucket, which is made with the first version
            return []
        except ObjectError as error:
            raise StorageError(f"The model store {self.root} cannot be listed: {error.cause}") from None

    def _unwritable(self, error: ObjectError) -> ThresherError:
        if self.root.scheme == "local":
            return unusable_folder("THRESHER_MODEL_STORE", str(self.root), error.cause.rstrip("."))
        return StorageError(f"The model store {self.root} cannot be written: {error.cause}")

    async def pick(self, source: str, model: str, version: str | None) -> ModelVersion:
        """The version to use: the requested one, else the newest in the Normal state.

        Raises SpecificationError if it does not exist or is in another state; the error lists the existing ones.
        """
        found = await self.versions(source, model)
        if not found:
            there = ", ".join(await self.models(source)) or "none yet"
            here = Path(model).is_dir() or Path(model).is_file()
            hint = f"./{model} exists: write ./{model} to use it" if here else "A path holds a '/'"
            expected = f"there is no such model in {source} ({self.root}); there are: {there}. {hint}"
            raise SpecificationError([Problem("model", model, expected)])
        listed = ", ".join(f"{one.version} ({one.state})" for one in found)
        if version is None:
            normal = [one for one in found if one.state == "Normal"]
            if not normal:
                raise SpecificationError(
                    [Problem("model", model, f"has no version in the Normal state; there are: {listed}")]
                )
            return await self._unchanged(normal[0])
        for one in found:
            if one.version == version:
                if one.state != "Normal":
                    reason = f": {one.reason}" if one.reason else ""
                    expected = f"the version is {one.state}, not Normal{reason}"
                    raise SpecificationError([Problem("model_version", version, expected)])
                return await self._unchanged(one)
        raise SpecificationError([Problem("model_version", version, f"there is no such version; there are: {listed}")])

    async def _unchanged(self, version: ModelVersion) -> ModelVersion:
        """The version itself. Raises SpecificationError if one of its files has changed since registration."""
        folder = parse_address(version.folder)
        if version.files and folder.scheme == "local":
            changed = await asyncio.to_thread(changed_file, Path(folder.path), version.files)
            if changed is not None:
                expected = f"its file {changed} was changed or removed after it was registered; register a new version"
                raise SpecificationError([Problem("model_version", f"{version.model} {version.version}", expected)])
        return version

    @staticmethod
    def check_names(model: str, version: str) -> None:
        """Raises SpecificationError if a name and a version cannot be those of folders."""
        problems = [
            Problem(field, value, "should be up to 64 letters, digits, '-', '_' and '.', no '.' or '-' first")
            for field, value in (("model", model), ("model_version", version))
            if NAME.match(value) is None
        ]
        if problems:
            raise SpecificationError(problems)

    async def create(self, source: str, model: str, version: str, package: Path) -> ModelVersion:
        """Copy a package into the store, in the state Creating. An existing version that is not Normal is replaced.

        Raises SpecificationError if the version exists and is Normal, or the package has files that cannot be copied
        (see package_files)."""
        self.check_names(model, version)
        earlier = next((one for one in await self._own_versions(source, model) if one.version == version), None)
        if earlier is not None and earlier.state == "Normal":
            raise SpecificationError([Problem("model_version", version, f"{model} has this version already")])
        files = package_files(package, LEFT_OUT)
        new = self._new(source, model, version)
        if earlier is not None:  # it never became usable
            try:
                await self._storage.delete(self.folder(source, model, version))
            except ObjectError as error:
                raise self._unwritable(error) from None
        made = await self.set_state(new, "Creating", "")
        try:
            return await self._copy(files, made)
        except BaseException as error:
            await self.set_state(made, "Abnormal", "the package could not be copied")
            if isinstance(error, OSError):
                error = explain(error)
            if isinstance(error, NoSpace):
                raise self._unwritable(error) from None
            if isinstance(error, ObjectError):
                raise StorageError(f"The package cannot be copied to {made.folder}: {error.cause}") from None
            raise

    async def _copy(self, files: list[PackageFile], made: ModelVersion) -> ModelVersion:
        target = parse_address(made.folder)
        if target.scheme == "local":
            copy_to_folder(files, Path(target.path))
            seals = file_seals(Path(target.path), (VERSION_FILE,))
            return await self.set_state(made.model_copy(update={"files": seals}), "Creating", "")
        seals = {}
        for file in plain_files(files):
            with opened(file) as read:
                await self._storage.bucket(target).write_file(target.child(file.name).path, read)
            seals[file.name] = await asyncio.to_thread(content_seal, file)
        return await self.set_state(made.model_copy(update={"files": seals}), "Creating", "")

    def _new(self, source: str, model: str, version: str) -> ModelVersion:
        return ModelVersion(
            source=source, model=model, version=version, state="Creating", created_at=datetime.now(UTC),
            folder=str(self.folder(source, model, version)),
        )  # fmt: skip

    async def set_state(self, version: ModelVersion, state: State, reason: str) -> ModelVersion:
        """Write the state of a version."""
        changed = version.model_copy(update={"state": state, "reason": reason})
        document: dict[str, Any] = changed.model_dump(mode="json", exclude={"folder"})
        file = self.folder(version.source, version.model, version.version).child(VERSION_FILE)
        await self._write(file, json.dumps(document, indent=2).encode())
        return changed

    async def _write(self, file: Address, data: bytes) -> None:
        try:
            try:
                await self._storage.write(file, data)
            except Missing:
                await self._storage.bucket(file).make()
                await self._storage.write(file, data)
        except ObjectError as error:
            raise self._unwritable(error) from None


async def check_content(storage: Storage, holder: str, folder: Path, content: str) -> None:
    """Check, before an instance starts, that a version is still the one with this ``content``.

    ``holder`` is the address of the version's folder with config.json, ``folder`` the same on this machine. Raises
    ModelServerError if the version is gone, was registered again, or one of its files was changed.
    """
    address = parse_address(holder)
    above = replace(address, path=address.path.rpartition("/")[0])
    for place, prefix in ((address, ""), (above, "model/")):
        try:
            found = ModelVersion.model_validate(
                {**json.loads(await storage.read(place.child(VERSION_FILE))), "folder": ""}
            )
        except Missing:
            continue
        except (TypeError, ValueError):
            break
        except ObjectError as error:
            raise StorageError(f"{place.child(VERSION_FILE)} cannot be read: {error.cause}") from None
        if found.content != content or found.state != "Normal":
            break
        seals = {name.removeprefix(prefix): seal for name, seal in found.files.items() if name.startswith(prefix)}
        if (changed := await asyncio.to_thread(changed_file, folder, seals)) is not None:
            detail = f"its file {changed} was changed or removed after it was registered; register a new version"
            raise ModelServerError(f"The model {found.model} {found.version} is refused: {detail}.")
        return
    raise ModelServerError(
        f"The version of the model in {holder} was deleted or registered again after this run had taken it: start the "
        "run again."
    )
