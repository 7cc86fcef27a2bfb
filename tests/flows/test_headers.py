"""Headers of a service to a model server that already runs: they reach it, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from prefect.blocks.system import Secret

pytestmark = pytest.mark.prefect

SECRET = "correct-horse-battery"
CONFIG = {
    "model_type": "Image",
    "apis": [{"url": "/", "request": {"data": {"type": "object", "properties": {"f": {"type": "file"}}}}}],
}


class Echo(BaseHTTPRequestHandler):
    """Answers with the headers that it was sent: 200, or 422 to an item that says so; 401 without the right ones."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str]]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, item: bytes) -> None:
        self.asked.append((self.command, self.path))
        status = 422 if b"refuse" in item else 200
        if self.headers["Authorization"] != f"Bearer {SECRET}":
            status = 401
        body = json.dumps(dict(self.headers)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Any]:
    """One of them; ``asked`` is what it was asked, in this order."""

    class Own(Echo):
        asked: list[tuple[str, str]] = []  # noqa: RUF012

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    listening.asked = Own.asked  # type: ignore[attr-defined]
    listening.url = f"http://127.0.0.1:{listening.server_address[1]}"  # type: ignore[attr-defined]
    thread = Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield listening
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_headers__reach_the_model_server_and_nothing_else(
    run_service: Any, server: Any, write_files: Any, tmp_path: Path
) -> None:
    Secret(value=f"{SECRET}\n").save("model-server-key", overwrite=True)
    source = write_files(tmp_path / "in", {"1.txt": "a", "2.txt": "refuse"})
    ran = run_service(
        model=f"{server.url}/v1/models/x:predict", model_config=json.dumps(CONFIG), input_path=str(source),
        headers={"Authorization": "Bearer {{ prefect.blocks.secret.model-server-key }}", "X-Tenant": "acme"},
    )  # fmt: skip
    assert ran.state == "Completed"
    seen = json.loads(ran.files["1.txt_result.txt"])
    assert (seen["Authorization"], seen["X-Tenant"]) == (f"Bearer {SECRET}", "acme")
    assert {*server.asked} == {("GET", "/health"), ("POST", "/v1/models/x:predict")}
    flow_run = ran.ask(f"/flow_runs/{ran.task_id}")
    artifacts = ran.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [ran.task_id]}}})
    told = json.dumps([ran.tasks, flow_run, artifacts, ran.logs, ran.summary]) + ran.manifest
    assert SECRET not in told and "correct-horse" not in told
    assert "The model answered HTTP 422" in ran.manifest and "***" in ran.manifest
    assert "{{ prefect.blocks.secret.model-server-key }}" in json.dumps(flow_run["parameters"])
    assert not [one for one in ran.logs if "looks like a secret" in one]


def test_headers__that_are_not_right_end_the_run_before_anything_is_sent(
    run_service: Any, server: Any, write_files: Any, tmp_path: Path
) -> None:
    source = write_files(tmp_path / "in", {"1.txt": "a"})
    ran = run_service(
        model=server.url, model_config=json.dumps(CONFIG), input_path=str(source), headers={"X-Api-Key": "wrong-key"}
    )
    assert ran.state == "Failed" and server.asked == [("GET", "/health")]
    assert f"The model server {server.url} answered HTTP 401 to GET /health: the service's headers" in str(ran.error)
    (warning,) = [one for one in ran.logs if "looks like a secret in plain text" in one]
    assert "headers.X-Api-Key" in warning and "wrong-key" not in "\n".join(ran.logs) + str(ran.error)
