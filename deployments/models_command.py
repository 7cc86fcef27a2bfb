"""``thresher models``: registering model versions and listing them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tasks.clients import launcher
from tasks.clients.launcher import Server
from tasks.clients.model_store import ModelStore, ModelVersion
from tasks.clients.packages import read_config
from tasks.clients.storage import Storage
from tasks.domain.errors import ModelServerError, Problem, SpecificationError
from tasks.domain.package import BOOT_FILE, CUSTOM_SERVICE, IMAGE, PackageConfig
from tasks.domain.paths import parse_address
from tasks.domain.run import Serving
from tasks.engine.loop import engine_loop
from tasks.settings import Settings, read_settings

SOURCE = "my-models"
START_SECONDS = 20 * 60.0


def register(package: Path, model: str, version: str) -> ModelVersion:
    """Put a package into the store: check its config.json, copy it, start it once and ask its health.

    The version is Normal then, else Abnormal with the reason. Raises SpecificationError, StorageError.
    """
    return engine_loop().run_blocking(_register(package, model, version))


async def _register(package: Path, model: str, version: str) -> ModelVersion:
    if not package.is_dir():
        raise SpecificationError([Problem("PACKAGE", str(package), "should be a folder")])
    settings = read_settings()
    storage = Storage(settings)
    try:
        config, holder = await read_config(storage, parse_address(str(package)))
    finally:
        await storage.close()
    folder = Path(holder.path)
    serving = _serving(folder, config)
    store = ModelStore(settings.model_store)
    made = store.create(SOURCE, model, version, package)
    try:
        await _start_once(serving, config, folder, settings)
    except ModelServerError as error:
        return store.set_state(made, "Abnormal", str(error))
    except BaseException:
        store.set_state(made, "Abnormal", "registering was interrupted")
        raise
    return store.set_state(made, "Normal", "")


def _serving(folder: Path, config: PackageConfig) -> Serving:
    if config.model_type != IMAGE and (folder / CUSTOM_SERVICE).is_file():
        return "built-in"
    if (folder / BOOT_FILE).is_file():
        return "boot-file"
    raise SpecificationError(
        [
            Problem(
                "PACKAGE",
                str(folder),
                f"has neither {CUSTOM_SERVICE} nor {BOOT_FILE}, so nothing says how it is served",
            )
        ]
    )


async def _start_once(serving: Serving, config: PackageConfig, folder: Path, settings: Settings) -> None:
    import asyncio

    launch = await launcher.prepare(serving, config, folder, {}, settings.cache)
    with tempfile.TemporaryDirectory(prefix="thresher-") as scratch:
        server = await Server.start(launch, Path(scratch) / "instance.log")
        try:
            async with asyncio.timeout(START_SECONDS):
                await server.ready(config.health)
        except TimeoutError:
            raise ModelServerError(
                f"The model server was not healthy in time ({server.health_said}).{server.tail()}"
            ) from None
        finally:
            await server.stop()


def versions(model: str | None) -> list[ModelVersion]:
    """Every version of one model, or of all, newest first."""
    store = ModelStore(read_settings().model_store)
    return [one for name in ([model] if model else store.models(SOURCE)) for one in store.versions(SOURCE, name)]
