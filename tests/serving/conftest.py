"""A running model server per test: real process, own port, stopped at the end whatever happened."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fakes.processes import DEADLINE_SECONDS, free_port, poll

SERVER = Path(__file__).parents[2] / "infra" / "serving" / "server.py"

StartServer = Callable[..., "ModelServer"]
WritePackage = Callable[..., Path]


@dataclass(frozen=True)
class Response:
    """One answer of the server; ``headers`` by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as JSON, which it must declare to be."""
        assert self.headers["content-type"] == "application/json"
        return json.loads(self.body)


@dataclass
class ModelServer:
    """One server process; its output goes to the file ``log``."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def request(
        self, method: str, path: str, body: bytes = b"", content_type: str = "application/json", **headers: str
    ) -> Response:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_SECONDS)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers | ({"Content-Type": content_type} if content_type else {}))
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())

    def post(self, data: Any, content_type: str = "application/json", path: str = "/") -> Response:
        """POST ``data``: bytes as they are, everything else as JSON."""
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        return self.request("POST", path, body, content_type)

    def health(self, path: str = "/health") -> int | None:
        """The status of the health check; None while nothing listens."""
        try:
            return self.request("GET", path).status
        except OSError:
            return None

    def ready(self, path: str = "/health") -> ModelServer:
        """Wait until the model is loaded."""

        def healthy() -> bool:
            assert self.process.poll() is None, f"the server ended: {self.output()}"
            return self.health(path) == 200

        poll(healthy, "a healthy server")
        return self

    def end(self) -> int:
        """Wait for the process to end by itself; its exit code."""
        return self.process.wait(DEADLINE_SECONDS)

    def output(self) -> str:
        """What the process wrote to standard output and standard error so far."""
        return self.log.read_text(encoding="utf-8")


@pytest.fixture
def wait_until() -> Callable[[Callable[[], Any], str], Any]:
    """Polls a condition until it is true, at most until the deadline."""
    return poll


@pytest.fixture
def write_package(tmp_path: Path) -> WritePackage:
    """Writes a package: the text of customize_service.py, config.json, and other files by name."""

    def write(service: str | None, config: Any = None, **files: str | bytes) -> Path:
        folder = tmp_path / "package"
        folder.mkdir()
        default = {"model_type": "Custom", "apis": [{"method": "post", "url": "/"}]}
        (folder / "config.json").write_text(json.dumps(default if config is None else config))
        if service is not None:
            (folder / "customize_service.py").write_text(service, encoding="utf-8")
        for name, content in files.items():
            path = folder / name.replace("__", ".")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return write


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts the server in a package's folder; ``environment`` overrides, a value of None removes."""
    started: list[ModelServer] = []

    def start(folder: Path, python: str | Path = sys.executable, **environment: str | None) -> ModelServer:
        port = free_port()
        chosen = {"PATH": os.environ["PATH"], "PORT": str(port), "MODEL_NAME": "tiny", **environment}
        log = tmp_path / f"server-{len(started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [python, SERVER],
                cwd=folder,
                env={name: value for name, value in chosen.items() if value is not None},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        started.append(ModelServer(process, port, log))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
