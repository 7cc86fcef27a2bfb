"""When the model server cannot start: exit code 1, the reason as last line, the package's traceback before it."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any

SERVICE = """
from model_service.pytorch_model_service import PTServingBaseService
class Service(PTServingBaseService):
    def _inference(self, data):
        return data
"""


def assert_refused(server: Any, *, last_line: str) -> str:
    """The process ends with code 1 and a last line that matches; returns all of its output."""
    assert server.end() == 1
    output: str = server.output()
    assert re.fullmatch(f"model server: cannot start: {last_line}", output.splitlines()[-1]), output
    return output


@pytest.mark.parametrize(
    ("service", "last_line"),
    [
        (None, r"there is no customize_service\.py in .*/package"),
        ("x = 1", r"customize_service\.py defines no service: one class must derive from one of model_service\..*"),
        (
            "from model_service.pytorch_model_service import PTServingBaseService",
            r"customize_service\.py defines no service: .*",
        ),
        (
            SERVICE + "class Another(PTServingBaseService): pass\n",
            r"customize_service\.py defines 2 services \(Another, Service\): exactly one is needed",
        ),
        (
            "from model_service.model_service import SingleNodeService\nclass S(SingleNodeService): pass",
            r"S\._inference\(self, data\) is not written: it must run the model",
        ),
        ("class S(:", r"customize_service\.py cannot be imported: SyntaxError: .*"),
        (
            "import no_such_module",
            r"customize_service\.py cannot be imported: ModuleNotFoundError: No module named 'no_such_module'; "
            r"put its package into dependencies of config\.json",
        ),
        ("import sys\nsys.exit(0)", r"customize_service\.py cannot be imported: SystemExit: 0"),
    ],
)
def test_server__ends_with_the_reason_when_there_is_no_service(
    write_package: WritePackage, start_server: StartServer, service: str | None, last_line: str
) -> None:
    assert_refused(start_server(write_package(service)), last_line=last_line)


def test_server__shows_the_traceback_of_a_broken_import(write_package: WritePackage, start_server: StartServer) -> None:
    server = start_server(write_package("import helper", helper__py="def f():\n    return 1 / 0\nf()"))
    output = assert_refused(
        server, last_line=r"customize_service\.py cannot be imported: ZeroDivisionError: division by zero"
    )
    assert 'customize_service.py", line 1, in <module>' in output
    assert 'helper.py", line 2, in f' in output
    assert "builtin_server" not in output


def test_server__shows_the_traceback_of_a_broken_constructor(
    write_package: WritePackage, start_server: StartServer
) -> None:
    service = SERVICE + "    def __init__(self, model_name, model_path):\n        open('weights.bin')\n"
    output = assert_refused(
        start_server(write_package(service)),
        last_line=r"Service\('tiny', '.*/package'\) failed: FileNotFoundError: .*'weights\.bin'",
    )
    assert re.search(r'customize_service\.py", line \d+, in __init__', output)
    assert "builtin_server" not in output


@pytest.mark.parametrize(
    ("variable", "value", "last_line"),
    [
        ("PORT", None, r"environment variable PORT = '': a whole number from 1 to 65535 is needed"),
        ("PORT", "http", r"environment variable PORT = 'http': .*"),
        ("PORT", "70000", r"environment variable PORT = '70000': .*"),
        ("MODEL_SERVER_THREADS", "0", r"environment variable MODEL_SERVER_THREADS = '0': .* from 1 to 1024 is needed"),
    ],
)
def test_server__refuses_a_wrong_environment(
    write_package: WritePackage, start_server: StartServer, variable: str, value: str | None, last_line: str
) -> None:
    assert_refused(start_server(write_package(SERVICE), **{variable: value}), last_line=last_line)


def test_server__refuses_a_folder_without_a_readable_config(
    write_package: WritePackage, start_server: StartServer
) -> None:
    folder = write_package(SERVICE)
    (folder / "config.json").write_text("{")
    assert_refused(start_server(folder), last_line=r".*/config\.json cannot be read: .*")
    (folder / "config.json").write_text("[]")
    assert_refused(start_server(folder), last_line=r".*/config\.json must hold one JSON object")
    (folder / "config.json").unlink()
    assert_refused(start_server(folder), last_line=r"there is no config\.json in .*")


def test_server__refuses_a_port_in_use(write_package: WritePackage, start_server: StartServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = start_server(write_package(SERVICE), PORT=str(taken.getsockname()[1]))
        assert_refused(server, last_line=r"cannot listen on 127\.0\.0\.1:\d+: .*in use.*")
