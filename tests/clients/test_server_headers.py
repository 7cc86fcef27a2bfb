"""A model server that wants a token, started from its package."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from clients.support import run

from tasks.clients.instances.launcher import Server, prepare
from tasks.domain.config_file import parse_config
from tasks.domain.errors import ModelServerError
from tasks.domain.settings import Settings

SERVER = """
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.headers.get("X-Key") == "let-me-in" else {status})
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args): pass
HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


async def ready(folder: Path, status: int, headers: dict[str, str]) -> str:
    package = folder / "package"
    package.mkdir()
    (package / "config.json").write_text(json.dumps({"model_type": "Image"}))
    (package / "run.sh").write_text("exec python3 server.py\n")
    (package / "server.py").write_text(SERVER.replace("{status}", str(status)))
    config = parse_config((package / "config.json").read_bytes(), "config.json")
    launch = await prepare("boot-file", config, package, "m", {}, Settings(cache=folder / "cache"))
    server = await Server.start(replace(launch, headers=headers), folder / "log")
    try:
        await server.ready(config.health)
        return await server.ask(config.health)
    finally:
        await server.stop()


def test_headers__are_sent_with_health_checks(tmp_path: Path) -> None:
    assert run(ready(tmp_path, 401, {"X-Key": "let-me-in"})) == ""


@pytest.mark.parametrize("status", [401, 403])
def test_health__that_wants_other_headers_ends_the_start_at_once(tmp_path: Path, status: int) -> None:
    with pytest.raises(ModelServerError, match=f"answered HTTP {status} to GET /health: the service's headers should"):
        run(ready(tmp_path, status, {}))
