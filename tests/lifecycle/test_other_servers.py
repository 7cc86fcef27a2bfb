"""Servers that are away, strange or guarded: one clear line. And one with as many services as are allowed."""

from __future__ import annotations

import json
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fakes import processes
from fakes.prefect_servers import PrefectServer, sqlite_server
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.services import lifecycle, overview
from deployments.templates.form import form
from flows.batch_service import batch_service
from tasks.clients.pool_files import read_pools
from tasks.domain.errors import SpecificationError

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("lifecycle-guarded")]

SERVICES = 1000
POOLS = Path(__file__).parents[2] / "infra" / "pools"


@contextmanager
def _answering(version: str) -> Iterator[str]:
    """A server that knows its version only; its API address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(version).encode()
            self.send_response(200 if self.path == "/api/admin/version" else 404)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()


def _one_line(ran: Any) -> str:
    assert (ran.returncode, ran.stdout) == (1, ""), ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1 and "Traceback" not in ran.stderr, ran.stderr
    return str(ran.stderr)


def test_server_of_another_major_version__is_refused_in_one_line(command_here):
    with _answering("2.20.0") as api, temporary_settings(updates={PREFECT_API_URL: api}):
        said = _one_line(command_here("list"))
    assert "has version 2.20.0" in said and "needs version 3" in said


def test_server_that_cannot_be_reached__one_line_says_what_to_do(thresher):
    with processes.closed_port() as port:
        api = f"http://user:hidden@127.0.0.1:{port}/api"
        said = _one_line(thresher("list", env={"PREFECT_API_URL": api}))
    assert "cannot be reached" in said and "thresher up" in said and "hidden" not in said


def test_server_behind_a_proxy_that_cannot_be_reached__the_line_names_the_variable(command_here, monkeypatch):
    elsewhere = {PREFECT_API_URL: "http://prefect.example/api"}
    with processes.closed_port() as port, temporary_settings(updates=elsewhere):
        proxy = {"HTTP_PROXY": f"http://user:hidden@127.0.0.1:{port}", "NO_PROXY": "", "no_proxy": ""}
        for variable, value in proxy.items():
            monkeypatch.setenv(variable, value)
        said = _one_line(command_here("list"))
    assert "cannot be reached" in said and f"HTTP_PROXY=http://127.0.0.1:{port}" in said and "hidden" not in said


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, _nothing_left_behind: None) -> Iterator[PrefectServer]:
    """A server that wants credentials, with as many services as are allowed; each has run."""
    with sqlite_server(tmp_path_factory.mktemp("guarded"), auth_string="admin:right") as server:
        _fill(server)
        yield server


def _fill(server: PrefectServer) -> None:
    """Through the API for one service, as rows of the database for the others: that takes seconds, not minutes."""
    flow = server.ask("/flows/", {"name": "batch_service"})["id"]
    parameters = {"service": {"name": "service-0000", "input_path": "/in", "output_path": "/out", "model": "m"}}
    schema = form(batch_service, read_pools(POOLS))  # what a real one weighs
    body = {"name": "service-0000", "flow_id": flow, "parameters": parameters, "parameter_openapi_schema": schema}
    deployment = server.ask("/deployments/", {**body, "enforce_parameter_schema": False})["id"]
    state = {"type": "COMPLETED", "name": "Completed"}
    server.ask(f"/deployments/{deployment}/create_flow_run", {"state": state})
    assert server.database is not None
    with closing(sqlite3.connect(server.database, timeout=60)) as database, database:
        database.row_factory = sqlite3.Row
        [one] = database.execute("SELECT * FROM deployment WHERE name = 'service-0000'").fetchall()
        [run] = database.execute("SELECT * FROM flow_run").fetchall()
        [stated] = database.execute("SELECT * FROM flow_run_state").fetchall()
        for number in range(1, SERVICES):
            ids = [str(uuid.uuid4()) for _ in range(3)]
            _insert(database, "deployment", one, id=ids[0], name=f"service-{number:04}")
            _insert(database, "flow_run", run, id=ids[1], deployment_id=ids[0], state_id=ids[2], idempotency_key=ids[1])
            _insert(database, "flow_run_state", stated, id=ids[2], flow_run_id=ids[1])


def _insert(database: sqlite3.Connection, table: str, row: sqlite3.Row, **changed: str) -> None:
    known = {
        one[1] for one in database.execute(f"PRAGMA table_xinfo({table})") if one[6] == 0
    }  # not the generated ones
    values = {name: value for name, value in {**dict(row), **changed}.items() if name in known}
    marks = ", ".join("?" for _ in values)
    database.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", list(values.values()))


def test_wrong_credentials__one_line_names_the_setting(guarded, thresher, command_here):
    for given in (None, "admin:wrong"):
        with temporary_settings(updates={PREFECT_API_URL: guarded.api, PREFECT_API_AUTH_STRING: given}):
            said = _one_line(command_here("list"))
        assert "PREFECT_API_AUTH_STRING" in said and "admin:wrong" not in said
    ran = thresher("show", "service-0007", "--json", env=guarded.environment)
    assert ran.returncode == 0 and json.loads(ran.stdout)["status"] == "Completed", ran.stderr


def test_list_and_show__of_1000_services_ask_the_server_a_few_times_only(
    guarded: PrefectServer, speak_to: Callable[[PrefectServer, Mapping[str, str]], None], monkeypatch
):
    from prefect.client.base import PrefectHttpxAsyncClient

    asked: list[str] = []
    send = PrefectHttpxAsyncClient.send

    async def counting(self: Any, request: Any, *arguments: Any, **named: Any) -> Any:
        asked.append(request.url.path)
        return await send(self, request, *arguments, **named)

    monkeypatch.setattr(PrefectHttpxAsyncClient, "send", counting)
    speak_to(guarded, guarded.environment)
    found = overview.list_services()
    assert [one.name for one in found] == [f"service-{number:04}" for number in range(SERVICES)]
    assert {one.status for one in found} == {"Completed"} and len({one.last_run.id for one in found}) == SERVICES
    assert len(asked) <= 13, asked
    asked.clear()
    assert overview.show("service-0999").status == "Completed"
    assert len(asked) <= 4, asked


def test_deploy__the_1001st_service_is_refused(guarded, speak_to, running, tmp_path):
    speak_to(guarded, guarded.environment)
    (tmp_path / "a.bin").write_bytes(b"a")
    paths = {"input_path": str(tmp_path / "a.bin"), "output_path": str(tmp_path / "out")}
    with pytest.raises(SpecificationError, match="1000 services already"):
        lifecycle.deploy({"name": "one-too-many", **paths, **running})
    with pytest.raises(SpecificationError, match="a service of this name exists"):
        lifecycle.deploy({"name": "service-0500", **paths, **running})
