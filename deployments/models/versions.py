"""``thresher models``: registering, listing and deleting model versions, and subscribing to the models of others."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from deployments.models.package_source import SOURCE, find_package
from deployments.models.starting import started
from tasks.clients.instances import launcher
from tasks.clients.packages.claims import claimed
from tasks.clients.packages.model_store import SUBSCRIBED, ModelStore, ModelVersion
from tasks.clients.packages.package_files import changed_file
from tasks.clients.packages.packages import files_of, local_copy, read_config
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain.errors import ModelServerError, Problem, RunError, SpecificationError
from tasks.domain.masking import Masker
from tasks.domain.package import IMAGE, PackageConfig, Serving, serving_of
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings, read_settings
from tasks.domain.unexpected import in_one_line, unusable_folder
from tasks.engine.checking import ANSWER_SECONDS
from tasks.engine.loop import on_engine_loop
from tasks.prefect_side.storage_keys import storage_keys

_LEAST_ROOM = 1 << 20
"""Bytes that must fit into the cache; an environment takes far more."""


@asynccontextmanager
async def _opened() -> AsyncIterator[tuple[Settings, Storage, ModelStore]]:
    settings = read_settings()
    async with open_storage(settings, await storage_keys(settings), ANSWER_SECONDS) as storage:
        yield settings, storage, ModelStore(storage, settings.model_store)


@on_engine_loop
async def register(package: str | Path, model: str | None, version: str) -> ModelVersion:
    """Put a package into the store: check its config.json, copy it, start it once and check its health.

    ``package`` is a folder or an address; the model's name is by default that of the folder. The version becomes
    Normal, or on failure Abnormal with the reason; a package whose image only a pool of containers can run is Normal by
    its config.json. Raises SpecificationError, also if another process registers the version at the same moment;
    StorageError.
    """
    async with _opened() as (settings, storage, store):
        _check_cache(settings.cache)
        given = str(package)
        source = await find_package(storage, settings, given if "/" in given else f"./{given}")
        model = model or source.name
        config, holder = await read_config(storage, source.folder)
        serving = _serving(config, await files_of(storage, holder), str(holder))
        folder = await local_copy(storage, str(source.folder), settings.cache)
        async with claimed(storage, store.root, SOURCE, *_named(store, model, version)) as claim:
            made = await store.create(SOURCE, model, version, folder)
            try:
                if serving != "sidecar":
                    await _start_once(storage, settings, made, config, serving)
            except RunError as error:
                await claim.check()
                return await store.set_state(made, "Abnormal", Masker(storage.secrets).block(str(error)))
            except Exception as error:
                await claim.check()
                await store.set_state(made, "Abnormal", in_one_line(error)[0])
                raise
            except BaseException:
                await store.set_state(made, "Abnormal", "registering was interrupted")
                raise
            await claim.check()
            return await store.set_state(made, "Normal", "")


def _named(store: ModelStore, model: str, version: str) -> tuple[str, str]:
    """Name and version. Raises SpecificationError if they cannot be folders: a claim is a file of these names, too."""
    store.check_names(model, version)
    return model, version


def _serving(config: PackageConfig, files: set[str], where: str) -> Serving:
    try:
        return serving_of(config, files, where)
    except SpecificationError:
        if config.model_type != IMAGE or not config.swr_location:
            raise
        return serving_of(config, files, where, in_pods=True)


async def _start_once(
    storage: Storage, settings: Settings, made: ModelVersion, config: PackageConfig, serving: Serving
) -> None:
    """Start the copy in the store. Raises RunError."""
    whole = await local_copy(storage, made.folder, settings.cache)
    if (changed := await asyncio.to_thread(changed_file, whole, made.files)) is not None:
        raise ModelServerError(f"Its file {changed} was changed by another process while it was registered.")
    _, stored = await read_config(storage, parse_address(made.folder))
    folder = whole if str(stored) == made.folder else whole / "model"
    async with started(await launcher.prepare(serving, config, folder, made.model, {}, settings), config.health):
        pass


def _check_cache(cache: Path) -> None:
    """Raises CallError if the cache is not writable. Called before anything is put into the store."""
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache) as file:
            file.write(bytes(_LEAST_ROOM))
    except OSError as error:
        raise unusable_folder("THRESHER_CACHE", str(cache), error) from None


@on_engine_loop
async def versions(model: str | None) -> list[ModelVersion]:
    """Every version of one model, or of all, own ones before subscriptions, newest first."""
    async with _opened() as (_, _, store):
        return await _versions(store, model)


async def _versions(store: ModelStore, model: str | None) -> list[ModelVersion]:
    names = {source: await store.models(source) for source in (SOURCE, SUBSCRIBED)}
    if model is not None and not any(model in there for there in names.values()):
        there = ", ".join(dict.fromkeys(name for found in names.values() for name in found)) or "none yet"
        raise SpecificationError([Problem("NAME", model, f"there is no such model; there are: {there}")])
    return [
        one
        for source, there in names.items()
        for name in there
        if model in (None, name)
        for one in await store.versions(source, name)
    ]


@on_engine_loop
async def version_of(model: str, version: str | None) -> ModelVersion:
    """One version of a model; without ``version`` the one that a service would take, else the newest."""
    async with _opened() as (_, _, store):
        found = await _versions(store, model)
        if version is None:
            return next((one for one in found if one.state == "Normal"), found[0])
        return _picked(found, version)


def _picked(found: list[ModelVersion], version: str) -> ModelVersion:
    for one in found:
        if one.version == version:
            return one
    there = ", ".join(dict.fromkeys(one.version for one in found)) or "none"
    raise SpecificationError([Problem("VERSION", version, f"there is no such version; there are: {there}")])


@on_engine_loop
async def delete(model: str, version: str | None) -> list[ModelVersion]:
    """Delete a version of an own model, or all of them; the deleted ones."""
    async with _opened() as (_, storage, store):
        found = [one for one in await _versions(store, model) if one.source == SOURCE]
        if not found:
            expected = "is a subscription, which is only read: `thresher models subscribe ADDRESS --remove` ends it"
            raise SpecificationError([Problem("NAME", model, expected)])
        chosen = found if version is None else [_picked(found, version)]
        for one in chosen:
            async with claimed(storage, store.root, SOURCE, one.model, one.version):
                await store.delete(one)
        return chosen


@on_engine_loop
async def subscribe(address: str, *, remove: bool = False) -> list[ModelVersion]:
    """Add a store of others to the subscriptions, or remove it; the versions that it has.

    Raises SpecificationError if there is no model in it, or no such subscription to remove.
    """
    async with _opened() as (_, storage, store):
        try:
            catalogue = parse_address(address)
        except ValueError as error:
            raise SpecificationError([Problem("ADDRESS", address, str(error))]) from None
        there = await store.subscriptions()
        if remove:
            if str(catalogue) not in there:
                expected = f"there is no such subscription; there are: {', '.join(there) or 'none'}"
                raise SpecificationError([Problem("ADDRESS", address, expected)])
            await store.subscribe([one for one in there if one != str(catalogue)])
            return []
        if catalogue == store.root:
            raise SpecificationError([Problem("ADDRESS", address, "is your own model store")])
        other = ModelStore(storage, str(catalogue))
        found = [one for name in await other.models(SOURCE) for one in await other.versions(SOURCE, name)]
        if not found:
            expected = f"should be a model store: a folder with {SOURCE}/NAME/VERSION; it has no model"
            raise SpecificationError([Problem("ADDRESS", address, expected)])
        await store.subscribe([*dict.fromkeys([*there, str(catalogue)])])
        return found
