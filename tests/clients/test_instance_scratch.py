"""The folder that each instance of a package has for itself, to write in."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from clients.support import run
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.instances.launcher import Server
from tasks.clients.packages.environments import SERVING
from tasks.domain.instance import Launch
from tasks.domain.package import Health

SERVICE = """
import multiprocessing, os, pathlib, tempfile
from model_service.pytorch_model_service import PTServingBaseService

class Service(PTServingBaseService):
    def __init__(self, model_name, model_path):
        self.folder = pathlib.Path(os.environ["SCRATCH_FOLDER"])
        self.found = sorted(path.name for path in self.folder.iterdir())
        (self.folder / "cache").mkdir()
        (self.folder / "cache" / "same-name").write_text(os.environ["PORT"])
        with tempfile.NamedTemporaryFile() as file:
            self.temporary = str(pathlib.Path(file.name).parent)
        multiprocessing.Manager().shutdown()  # a socket in the folder for temporary files

    def _inference(self, data):
        written = (self.folder / "cache" / "same-name").read_text()
        return {"found": self.found, "written": written, "temporary": self.temporary, "folder": str(self.folder)}
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path, as temporary folders of runs have."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="thresher-tests-") as folder:
        yield Path(folder)


def launch_of(folder: Path, **environment: str) -> Launch:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "PyTorch"}')
    (folder / "customize_service.py").write_text(SERVICE)
    command = (sys.executable, str(SERVING / "server.py"))
    return Launch(command, folder, {"PATH": os.environ["PATH"], **environment})


async def asked(server: Server) -> Any:
    await server.ready(Health(period_seconds=0.5))
    return await asyncio.to_thread(lambda: requests.post(server.url, json={}, timeout=DEADLINE_SECONDS).json())


def test_scratch_folder__is_each_instances_own_and_empty_at_each_start(tmp_path: Path, short: Path) -> None:
    launch = launch_of(tmp_path / "package")
    logs = short

    async def once() -> None:
        servers = [await Server.start(launch, logs / f"instance-{number}.log") for number in range(2)]
        try:
            answers = await asyncio.gather(*map(asked, servers))
        finally:
            await asyncio.gather(*(server.stop() for server in servers))
        assert [answer["written"] for answer in answers] == [server.url.rpartition(":")[2] for server in servers]
        assert [answer["found"] for answer in answers] == [[], []]
        assert [answer["folder"] for answer in answers] == [str(logs / f"instance-{n}.tmp") for n in range(2)]
        assert all(answer["temporary"] == answer["folder"] for answer in answers)

    run(once())
    run(once())  # as after a restart
    assert sorted(path.name for path in launch.folder.iterdir() if path.suffix != ".pyc") == [
        *(["__pycache__"] if (launch.folder / "__pycache__").exists() else []), "config.json", "customize_service.py",
    ]  # fmt: skip


def test_scratch_folder__with_a_path_that_is_too_long_for_sockets_is_not_for_temporary_files(tmp_path: Path) -> None:
    launch = launch_of(tmp_path / "package")
    logs = tmp_path / ("long" * 20)
    logs.mkdir()

    async def work() -> Any:
        server = await Server.start(launch, logs / "instance-0.log")
        try:
            return await asked(server)
        finally:
            await server.stop()

    answer = run(work())
    assert answer["folder"] == str(logs / "instance-0.tmp")
    assert answer["temporary"] != answer["folder"]


@pytest.fixture
def short_folder() -> Iterator[Path]:
    """A folder whose path leaves room for the names of sockets, which pytest's own may not."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="own-") as folder:
        yield Path(folder)


def test_scratch_folder__leaves_the_folder_for_temporary_files_that_a_service_names(
    tmp_path: Path, short_folder: Path
) -> None:
    launch = launch_of(tmp_path / "package", TMPDIR=str(short_folder), SCRATCH_FOLDER="/")

    async def work() -> Any:
        server = await Server.start(launch, tmp_path / "instance.log")
        try:
            return await asked(server)
        finally:
            await server.stop()

    answer = run(work())
    assert (answer["temporary"], answer["folder"]) == (str(short_folder), str(tmp_path / "instance.tmp"))
