"""Which exceptions of a package's code the server explains: the same request would bring the same one."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Any

import pytest

SERVING = Path(__file__).parents[2] / "infra" / "serving"

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any


@pytest.fixture
def may_pass(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SERVING))
    sys.modules.pop("builtin_server", None)
    from builtin_server.passing import may_pass

    return may_pass


class OutOfMemoryError(RuntimeError):
    """As PyTorch calls it."""


class UnidentifiedImageError(OSError):
    """As Pillow calls it."""


class ConnectTimeout(ConnectionError):
    """As requests calls it."""


def raised_from(cause: BaseException) -> BaseException:
    try:
        try:
            raise cause
        except BaseException as error:
            raise ValueError("the model failed") from error
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (MemoryError(), True),
        (OutOfMemoryError("CUDA"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("can't start new thread"), True),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EMFILE, "Too many open files"), True),
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (ConnectTimeout("no answer"), True),
        (raised_from(MemoryError()), True),
        (ValueError("bad"), False),
        (TypeError("'NoneType' object is not callable"), False),
        (KeyError("images"), False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("out of memory is what the picture shows"), False),
        (UnidentifiedImageError("cannot identify image file"), False),
        (FileNotFoundError(errno.ENOENT, "No such file"), False),
        (PermissionError(errno.EACCES, "Permission denied"), False),
        (NotImplementedError(), False),
        (SystemExit(1), False),
        (raised_from(KeyError("a")), False),
    ],
)
def test_exception__may_pass_if_memory_disk_or_network_were_short(
    may_pass: Any, error: BaseException, passes: bool
) -> None:
    assert may_pass(error) is passes


FAILING = """
import threading
from model_service.pytorch_model_service import PTServingBaseService
class Failing(PTServingBaseService):
    def __init__(self, model_name, model_path):
        if {thread}:
            threading.Thread(target=threading.Event().wait, daemon=True).start()
    def _inference(self, data):
        if data == "memory":
            raise MemoryError()
        return [][data["index"]] if data else object if data == [] else 1
"""
HEADER = "x-package-exception"


def test_server__explains_the_exceptions_of_the_package_and_no_others(
    write_package: WritePackage, start_server: StartServer
) -> None:
    server = start_server(write_package(FAILING.replace("{thread}", "False"))).ready()
    for body, status, explained in (
        ({"index": 1}, 500, True), ({}, 200, False), ([], 400, True), ("memory", 500, False), (b"no JSON", 400, False)
    ):  # fmt: skip
        answer = server.post(body)
        assert (answer.status, HEADER in answer.headers) == (status, explained), (body, answer)


def test_server__does_not_explain_while_a_thread_may_still_load_the_model(
    write_package: WritePackage, start_server: StartServer
) -> None:
    server = start_server(write_package(FAILING.replace("{thread}", "True"))).ready()
    assert HEADER not in server.post({"index": 1}).headers
    assert server.post({}).status == 200
    assert HEADER in server.post({"index": 1}).headers
