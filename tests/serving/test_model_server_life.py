"""How the model server starts and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any
WaitUntil = Any

SERVING = Path(__file__).parents[2] / "infra" / "serving"

SERVICE = """
import pathlib, time
from model_service.pytorch_model_service import PTServingBaseService
def wait_for(name):
    end = time.monotonic() + 600
    while not pathlib.Path(name).exists() and time.monotonic() < end:
        time.sleep(0.01)
class Service(PTServingBaseService):
    def _inference(self, data):
        if "until" in data:
            pathlib.Path("begun").touch()
            wait_for(data["until"])
        return [self.model_name, self.model_path]
"""
SLOW = (
    SERVICE
    + """
    def __init__(self, model_name, model_path):
        super().__init__(model_name, model_path)
        wait_for("go")
"""
)


def test_server__answers_503_while_the_model_loads(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(SLOW)
    server = start_server(folder)
    wait_until(lambda: server.health() == 503, "the server listens")
    early = server.post({})
    assert (early.status, early.headers["retry-after"]) == (503, "1")
    (folder / "go").touch()
    assert server.ready().post({}).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "model_service.SingleNodeService",
        "pytorch_model_service.PTServingBaseService",
        "tfserving_model_service.TfServingBaseService",
        "python_model_service.XgSklServingBaseService",
        "spark_model_service.SparkServingBaseService",
        "caffe_model_service.CaffeBaseService",
    ],
)
def test_server__knows_the_base_class(write_package: WritePackage, start_server: StartServer, path: str) -> None:
    module, name = path.split(".")
    service = (
        f"from model_service.{module} import {name}\n"
        f"class Service({name}):\n"
        "    def __init__(self, model_name, model_path):\n"
        "        super(Service, self).__init__(model_name, model_path)\n"
        "    def _inference(self, data): return data\n"
    )
    assert start_server(write_package(service)).ready().post({"a": 1}).json() == {"a": 1}


def test_model_path__is_the_only_model_file(write_package: WritePackage, start_server: StartServer) -> None:
    no_models = {"helper__py": "", "README__md": "", "requirements__txt": "", "notes__TXT": "", "__hidden": ""}
    folder = write_package(SERVICE, model__bin="weights", **no_models)
    (folder / ".git").mkdir()
    (folder / ".git" / "object").touch()
    assert start_server(folder).ready().post({}).json() == ["tiny", str(folder / "model.bin")]


def test_model_path__is_the_folder_when_there_are_several_files_or_none(
    write_package: WritePackage, start_server: StartServer
) -> None:
    folder = write_package(SERVICE)
    assert start_server(folder, MODEL_NAME=None).ready().post({}).json() == ["package", str(folder)]
    # As TensorFlow saves its models: one file at the top, more below.
    (folder / "saved_model.pb").touch()
    (folder / "variables").mkdir()
    (folder / "variables" / "variables.index").touch()
    assert start_server(folder).ready().post({}).json() == ["tiny", str(folder)]


def test_package__may_bring_modules_that_are_called_like_the_servers(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = "import app, server, settings\n" + SERVICE + "        raise ValueError(app.X + server.X + settings.X)\n"
    service = service.replace("        return [self.model_name, self.model_path]\n", "")
    folder = write_package(service, app__py="X = 'a'", server__py="X = 'b'", settings__py="X = 'c'")
    (folder / "model_service").mkdir()
    (folder / "model_service" / "__init__.py").write_text("raise ImportError('a stand-in for tests at home')")
    assert start_server(folder).ready().post({}).json() == {"error": "ValueError: abc"}


def test_server__prints_what_the_model_prints_at_once(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    service = "import logging\n" + SERVICE + "        pass\n"
    service = service.replace('if "until" in data:', 'print("图 printed"); logging.info("logged")\n        if data:')
    server = start_server(write_package(service), PYTHONIOENCODING="ascii").ready()
    server.post({})
    wait_until(lambda: "图 printed" in server.output() and "INFO root: logged" in server.output(), "the model's output")


def test_sigterm__stops_an_idle_server_and_leaves_no_process(
    write_package: WritePackage, start_server: StartServer
) -> None:
    server = start_server(write_package(SERVICE)).ready()
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(server.process.pid, 0)


def test_sigterm__lets_a_request_in_flight_finish(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(SERVICE)
    server = start_server(folder).ready()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(server.post, {"until": "go"})
        wait_until((folder / "begun").exists, "the request begins")
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.health() is None, "the server takes no more connections")
        (folder / "go").touch()
        assert work.result().status == 200
    assert server.end() == 0


def test_sigterm__ends_the_server_although_the_model_hangs(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(SERVICE)
    server = start_server(folder).ready()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(server.post, {"until": "never"})
        wait_until((folder / "begun").exists, "the request begins")
        server.process.send_signal(signal.SIGTERM)
        assert work.result().status == 503
    assert server.end() == 0  # long before the model would have answered


def test_sigterm__ends_the_server_while_the_model_loads(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    server = start_server(write_package(SLOW))
    wait_until(lambda: server.health() == 503, "the server listens")
    server.process.send_signal(signal.SIGTERM)
    assert server.end() == 0


def test_server__imports_nothing_of_thresher() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SERVING)!r}); import builtin_server.run;"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "asyncio" in imported
    assert not {"prefect", "pydantic", "tasks", "flows", "deployments", "infra", "numpy", "uvicorn"} & set(imported)


def test_requirements__are_the_versions_that_thresher_is_tested_with() -> None:
    lines = (SERVING / "requirements.txt").read_text().splitlines()
    pins = [line.partition(";")[0] for line in lines if not line.startswith("#")]
    assert pins
    assert [pin for pin in pins if version(pin.partition("==")[0]) != pin.partition("==")[2]] == []
