"""The model store: one folder per source, model and version, on any storage.

``<store>/<source>/<model>/<version>/`` holds the package's files and ``version.json``, which records the state of the
version (Creating, Normal, Abnormal) and its reason.
"""

from __future__ import annotations

import errno
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tasks.clients.packages.package_files import (
    changed_file,
    copy_to_folder,
    file_seals,
    package_files,
    plain_files,
    read_into,
)
from tasks.clients.packages.packages import endpoint_of, filesystem, said_of
from tasks.clients.storage.object_errors import no_s3
from tasks.clients.storage.temporary_names import unique_name
from tasks.domain.credentials import Credentials
from tasks.domain.errors import Problem, SpecificationError, StorageError, ThresherError
from tasks.domain.paths import Address, parse_address
from tasks.domain.unexpected import unusable_folder

VERSION_FILE = "version.json"
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
    """Seals of its files from registration, in a store on this machine; a run is refused if a file has changed."""

    @property
    def order(self) -> tuple[tuple[int, int, str], ...]:
        """Sort key for natural order: 0.0.10 is newer than 0.0.9, and 1.0 than 1.0-rc1."""
        parts = re.findall(r"\d+|[A-Za-z]+", self.version)
        ranked = ((2, int(part), "") if part.isdigit() else (0, 0, part) for part in parts)
        return (*ranked, (1, 0, ""))


class ModelStore:
    """Reads and writes the store. Not on the hot path, so it uses fsspec (s3fs). Raises StorageError."""

    def __init__(self, root: str, credentials: dict[str, Credentials] | None = None) -> None:
        self.root = parse_address(root)
        self._filesystem, self._path = filesystem(self.root, credentials or {})
        self._path = self._path.rstrip("/")
        self._endpoint = endpoint_of(self.root, credentials or {})

    def folder(self, source: str, model: str, version: str) -> Address:
        """The folder of a version's package."""
        return self.root.child(f"{source}/{model}/{version}")

    def versions(self, source: str, model: str) -> list[ModelVersion]:
        """All versions of a model, newest first; empty if there is no such model."""
        found = []
        for version in self._names(f"{source}/{model}"):
            try:
                raw = self._filesystem.cat_file(f"{self._path}/{source}/{model}/{version}/{VERSION_FILE}")
            except FileNotFoundError:
                continue
            except Exception as error:  # any error that s3fs lets through
                where = self.folder(source, model, version).child(VERSION_FILE)
                raise StorageError(f"{where} cannot be read: {said_of(error, self._endpoint)}.") from None
            try:
                document = {**json.loads(raw), "folder": str(self.folder(source, model, version))}
                found.append(ModelVersion.model_validate(document))
            except (TypeError, ValueError):  # not JSON, or not a version: no reason to hide the others
                broken = self._new(source, model, version)
                reason = f"its {VERSION_FILE} is broken; register the version again"
                found.append(broken.model_copy(update={"state": "Abnormal", "reason": reason}))
        return sorted(found, key=lambda one: one.order, reverse=True)

    def models(self, source: str) -> list[str]:
        """Names of the models of a source."""
        return self._names(source)

    def _names(self, relative: str) -> list[str]:
        try:
            self._filesystem.invalidate_cache()
            found = self._filesystem.ls(f"{self._path}/{relative}", detail=True)
            if not found:
                self._check_storage()
        except FileNotFoundError:
            self._check_storage()
            return []
        except StorageError:
            raise
        except Exception as error:  # s3fs lets botocore's errors through
            said = said_of(error, self._endpoint)
            raise StorageError(f"The model store {self.root} cannot be listed: {said}.") from None
        return sorted(entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == "directory")

    def _check_storage(self) -> None:
        """Raises StorageError if the endpoint is not S3: a sign-in page looks like an empty bucket."""
        if self.root.scheme == "local":
            return
        try:
            answer = self._filesystem.call_s3("list_objects_v2", Bucket=self.root.bucket, MaxKeys=1)
        except Exception:
            return  # an S3 error also shows that the endpoint is S3, as the listing did
        if not {"Name", "KeyCount", "IsTruncated", "Contents"} & set(answer):
            raise StorageError(f"The model store {self.root} cannot be listed. {no_s3(self._endpoint)}")

    def _unwritable(self, error: Exception) -> ThresherError:
        if self.root.scheme == "local" and isinstance(error, OSError):
            return unusable_folder("THRESHER_MODEL_STORE", str(self.root), error)
        return StorageError(f"The model store {self.root} cannot be written: {said_of(error, self._endpoint)}.")

    def pick(self, source: str, model: str, version: str | None) -> ModelVersion:
        """The version to use: the requested one, else the newest in the Normal state.

        Raises SpecificationError if it does not exist or is in another state; the error lists the existing ones.
        """
        found = self.versions(source, model)
        if not found:
            there = ", ".join(self.models(source)) or "none yet"
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
            return self._unchanged(normal[0])
        for one in found:
            if one.version == version:
                if one.state != "Normal":
                    reason = f": {one.reason}" if one.reason else ""
                    expected = f"the version is {one.state}, not Normal{reason}"
                    raise SpecificationError([Problem("model_version", version, expected)])
                return self._unchanged(one)
        raise SpecificationError([Problem("model_version", version, f"there is no such version; there are: {listed}")])

    def _unchanged(self, version: ModelVersion) -> ModelVersion:
        """The version itself. Raises SpecificationError if one of its files has changed since registration."""
        if version.files and self.root.scheme == "local":
            changed = changed_file(Path(parse_address(version.folder).path), version.files)
            if changed is not None:
                expected = f"its file {changed} was changed or removed after it was registered; register a new version"
                raise SpecificationError([Problem("model_version", f"{version.model} {version.version}", expected)])
        return version

    def create(self, source: str, model: str, version: str, package: Path) -> ModelVersion:
        """Copy a package into the store, in the state Creating. An existing version that is not Normal is replaced.

        Raises SpecificationError if the version exists and is Normal, or the package has files that cannot be copied
        (see package_files)."""
        problems = [
            Problem(field, value, "should be up to 64 letters, digits, '-', '_' and '.', no '.' or '-' first")
            for field, value in (("model", model), ("model_version", version))
            if NAME.match(value) is None
        ]
        if problems:
            raise SpecificationError(problems)
        earlier = next((one for one in self.versions(source, model) if one.version == version), None)
        if earlier is not None and earlier.state == "Normal":
            raise SpecificationError([Problem("model_version", version, f"{model} has this version already")])
        files = package_files(package, (VERSION_FILE,))
        target = f"{self._path}/{source}/{model}/{version}"
        if earlier is not None:  # it never became usable
            self._remove(target)
        made = self.set_state(self._new(source, model, version), "Creating", "")
        try:
            if self.root.scheme == "local":
                copy_to_folder(files, Path(target))
                made = self.set_state(
                    made.model_copy(update={"files": file_seals(Path(target), (VERSION_FILE,))}), "Creating", ""
                )
            else:
                for file in plain_files(files):
                    with self._filesystem.open(f"{target}/{file.name}", "wb") as write:
                        read_into(file, write)
        except Exception as error:  # s3fs lets botocore's errors through
            self.set_state(made, "Abnormal", "the package could not be copied")
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise self._unwritable(error) from None
            said = said_of(error, self._endpoint)
            raise StorageError(f"The package cannot be copied to {made.folder}: {said}.") from None
        return made

    def _remove(self, folder: str) -> None:
        try:
            self._filesystem.rm(folder, recursive=True)
        except Exception as error:  # s3fs lets botocore's errors through
            raise self._unwritable(error) from None

    def _new(self, source: str, model: str, version: str) -> ModelVersion:
        return ModelVersion(
            source=source, model=model, version=version, state="Creating", created_at=datetime.now(UTC),
            folder=str(self.folder(source, model, version)),
        )  # fmt: skip

    def set_state(self, version: ModelVersion, state: State, reason: str) -> ModelVersion:
        """Write the state of a version."""
        changed = version.model_copy(update={"state": state, "reason": reason})
        target = f"{self._path}/{version.source}/{version.model}/{version.version}"
        document: dict[str, Any] = changed.model_dump(mode="json", exclude={"folder"})
        try:
            self._filesystem.makedirs(target, exist_ok=True)
            # Atomic rename: a concurrent reader finds a complete file (objects are never partially written).
            place = f"{target}/{VERSION_FILE}"
            beside = f"{place}.{unique_name()}" if self.root.scheme == "local" else place
            self._filesystem.pipe_file(beside, json.dumps(document, indent=2).encode())
            if beside != place:
                self._filesystem.mv(beside, place)
        except Exception as error:  # s3fs lets botocore's errors through
            raise self._unwritable(error) from None
        return changed
