"""Docker's API as far as runs use it, with processes in place of containers. Checked against Docker's own client.

An image is a command: its container runs that, with the environment that was asked for and nothing else.
"""

from __future__ import annotations

import json
import struct
import subprocess
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from fakes.processes import die_with_parent

HEADER = struct.Struct(">BxxxL")
"""Before each piece of a container's output: which stream, and how long."""


class FakeDocker:
    """An engine whose ``registry`` has these images, by name; they are there once they were pulled."""

    def __init__(self, folder: Path, registry: dict[str, Sequence[str]], network: str = "models") -> None:
        self.folder, self.registry, self.network = folder, registry, network
        self.images: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.created: list[dict[str, Any]] = []
        self.containers: dict[str, dict[str, Any]] = {}
        engine = self

        class Handler(_Handler):
            fake = engine

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def address(self) -> str:
        """Of its API."""
        return f"tcp://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for name in list(self.containers):
            self.remove(name)

    def add(self, asked: dict[str, Any]) -> str:
        """Make a container, not started yet; its id."""
        name = f"{len(self.created):064x}"
        self.created.append(asked)
        self.containers[name] = {"asked": asked, "log": self.folder / f"{name}.out", "process": None}
        return name

    def start(self, name: str) -> None:
        """Start a container."""
        held = self.containers[name]
        environment = dict(one.split("=", 1) for one in held["asked"].get("Env", ()))
        with held["log"].open("wb") as output:
            held["process"] = subprocess.Popen(
                self.registry[held["asked"]["Image"]], env=environment, stdout=output, stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL, preexec_fn=die_with_parent,
            )  # fmt: skip

    def remove(self, name: str) -> None:
        """Kill a container, and forget it."""
        held = self.containers.pop(name)
        if held["process"] is not None:
            held["process"].kill()
            held["process"].wait()

    def is_running(self, name: str) -> bool:
        """Whether a container runs."""
        process = self.containers[name]["process"]
        return process is not None and process.poll() is None


class _Handler(BaseHTTPRequestHandler):
    fake: FakeDocker
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        match self._words():
            case ["version"]:
                self._answer(200, {"ApiVersion": "1.45", "Version": "26.0"})
            case ["containers", "json"]:
                label = json.loads(self._query()["filters"])["label"]
                held = {name: one["asked"].get("Labels", {}) for name, one in self.fake.containers.items()}
                shown = [{"Id": name, "Labels": labels} for name, labels in held.items() if set(label) <= set(labels)]
                self._answer(200, shown)
            case ["containers", name, "json"] if name in self.fake.containers:
                networks = {self.fake.network: {"IPAddress": "127.0.0.1"}}
                state = {"Running": self.fake.is_running(name)}
                self._answer(
                    200,
                    {"Id": name, "State": state, "NetworkSettings": {"Networks": networks}, "Config": {"Tty": False}},
                )
            case ["containers", name, "logs"] if name in self.fake.containers:
                self._stream_logs(name)
            case _:
                self._answer(404, {"message": f"No such container: {self.path}"})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        match self._words():
            case ["images", "create"]:
                query = self._query()
                image = f"{query['fromImage']}:{query['tag']}"
                self.fake.images |= {image} & set(self.fake.registry)
                self._answer(200, {"status": "done"} if image in self.fake.registry else {"error": "manifest unknown"})
            case ["containers", "create"]:
                asked = json.loads(body)
                if asked["Image"] not in self.fake.images:
                    self._answer(404, {"message": f"No such image: {asked['Image']}"})
                else:
                    self._answer(201, {"Id": self.fake.add(asked), "Warnings": []})
            case ["containers", name, "start"] if name in self.fake.containers:
                self.fake.start(name)
                self._answer(204, None)
            case ["containers", name, "wait"] if name in self.fake.containers:
                status = self.fake.containers[name]["process"].wait()
                self._answer(200, {"StatusCode": status if status >= 0 else 128 - status})
            case _:
                self._answer(404, {"message": f"No such container: {self.path}"})

    def do_DELETE(self) -> None:
        match self._words():
            case ["containers", name] if name in self.fake.containers:
                self.fake.remove(name)
                self._answer(204, None)
            case _:
                self._answer(404, {"message": "No such container"})

    def _words(self) -> list[str]:
        words = urlsplit(self.path).path.strip("/").split("/")
        words = words[1:] if words[0].startswith("v1.") else words
        self.fake.asked.append((self.command, "/".join(words)))
        return words

    def _query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def _answer(self, status: int, value: object) -> None:
        body = b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream_logs(self, name: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.docker.multiplexed-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        wait = threading.Event()
        with self.fake.containers[name]["log"].open("rb") as log:
            while True:
                over = name not in self.fake.containers or not self.fake.is_running(name)
                piece = log.read(1 << 16)
                if piece:
                    self.wfile.write(HEADER.pack(1, len(piece)) + piece)
                    self.wfile.flush()
                elif over:
                    return
                else:
                    wait.wait(0.02)
