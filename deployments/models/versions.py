"""``thresher models``: registering model versions and listing them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from deployments.models.package_source import SOURCE
from deployments.models.starting import started
from tasks.clients.instances import launcher
from tasks.clients.packages.model_store import ModelStore, ModelVersion
from tasks.clients.packages.packages import files_of, local_copy, read_config
from tasks.clients.storage.storage import open_storage
from tasks.domain.errors import Problem, RunError, SpecificationError
from tasks.domain.masking import Masker
from tasks.domain.package import serving_of
from tasks.domain.paths import parse_address
from tasks.domain.settings import read_settings
from tasks.domain.unexpected import in_one_line, unusable_folder
from tasks.engine.checking import ANSWER_SECONDS
from tasks.engine.loop import on_engine_loop
from tasks.prefect_side.storage_keys import storage_keys

_LEAST_ROOM = 1 << 20
"""Bytes that must fit into the cache; an environment takes far more."""


@on_engine_loop
async def register(package: Path, model: str, version: str) -> ModelVersion:
    """Put a package into the store: check its config.json, copy it, start it once and check its health.

    The version becomes Normal, or on failure Abnormal with the reason. Raises SpecificationError, StorageError.
    """
    if not package.is_dir():
        raise SpecificationError([Problem("PACKAGE", str(package), "should be a folder")])
    settings = read_settings()
    async with open_storage(settings, await storage_keys(settings), ANSWER_SECONDS) as storage:
        store = ModelStore(storage, settings.model_store)
        _check_cache(settings.cache)
        config, holder = await read_config(storage, parse_address(str(package)))
        serving = serving_of(config, await files_of(storage, holder), str(holder))
        made = await store.create(SOURCE, model, version, package)
        try:
            _, stored = await read_config(storage, parse_address(made.folder))
            folder = await local_copy(storage, str(stored), settings.cache)
            launch = await launcher.prepare(serving, config, folder, model, {}, settings)
            async with started(launch, config.health):
                pass
        except RunError as error:
            return await store.set_state(made, "Abnormal", Masker(storage.secrets).block(str(error)))
        except Exception as error:
            await store.set_state(made, "Abnormal", in_one_line(error)[0])
            raise
        except BaseException:
            await store.set_state(made, "Abnormal", "registering was interrupted")
            raise
        return await store.set_state(made, "Normal", "")


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
    """Every version of one model, or of all, newest first."""
    settings = read_settings()
    async with open_storage(settings, await storage_keys(settings), ANSWER_SECONDS) as storage:
        store = ModelStore(storage, settings.model_store)
        models = await store.models(SOURCE)
        if model is not None and model not in models:
            there = ", ".join(models) or "none yet"
            raise SpecificationError([Problem("NAME", model, f"there is no such model; there are: {there}")])
        return [one for name in ([model] if model else models) for one in await store.versions(SOURCE, name)]
