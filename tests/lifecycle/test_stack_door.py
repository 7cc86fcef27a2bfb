"""Who may ask the server of `thresher up` for what, asked as programs, other accounts and web pages would."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
import websockets
from fakes import processes
from fakes.local_stack import LocalStack, local_stack

from tasks.clients.peers import listening_account

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("stack")]

OTHER = 65534
SECRETS = "/block_documents/filter"
ASK = """
import json, sys, urllib.request
request = urllib.request.Request(sys.argv[1], b"{}", {"content-type": "application/json"})
try: print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60).status)
except urllib.error.HTTPError as error: print(error.code)
"""

LISTEN = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self): print(self.headers, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, _nothing_left_behind: None) -> Iterator[LocalStack]:
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    with local_stack(tmp_path_factory.mktemp("door"), others) as one:
        yield one


def ask(stack: LocalStack, path: str, body: object = None, **more: Any) -> requests.Response:
    method = more.pop("method", "GET" if body is None else "POST")
    return requests.request(method, stack.ui + path, json=body, timeout=60, allow_redirects=False, **more)


def test_password__is_a_file_of_its_account_alone(stack: LocalStack) -> None:
    modes = {
        name: stat.S_IMODE((stack.folder / name).stat().st_mode) for name in (".", "password", "prefect/prefect.db")
    }
    assert modes == {".": 0o700, "password": 0o600, "prefect/prefect.db": 0o600}
    assert len(stack.password[1]) >= 32


def test_password__is_on_no_command_line(stack: LocalStack, processes_of: Callable[[Path], Mapping[int, str]]) -> None:
    lines = processes_of(Path(os.environ["TMPDIR"])).values()
    assert any("tasks.prefect_app" in line for line in lines)
    assert not [line for line in lines if stack.password[1] in line]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", f"/api{SECRETS}"), ("POST", "/api/flow_runs/filter"), ("POST", "/api/variables/filter"),
     ("GET", "/api/admin/settings"), ("GET", "/api/admin/version"), ("DELETE", "/api/admin/storage"),
     ("GET", "/api/docs"), ("GET", "/api/openapi.json"), ("GET", "/docs"), ("GET", "/redoc"), ("GET", "/openapi.json"),
     ("GET", "/api/csrf-token"), ("POST", "/sign-in/links"), ("POST", "/api/health"), ("POST", "/api/flows/")],
)  # fmt: skip
def test_without_a_password__nothing_is_answered(stack: LocalStack, method: str, path: str) -> None:
    assert ask(stack, path, {} if method == "POST" else None, method=method).status_code == 401
    wrong = (stack.password[0], "wrong")
    assert ask(stack, path, {} if method == "POST" else None, method=method, auth=wrong).status_code == 401


def test_with_the_password__the_api_is_answered_and_health_to_all(stack: LocalStack) -> None:
    assert ask(stack, f"/api{SECRETS}", {}, auth=stack.password).status_code == 200
    assert ask(stack, "/api/admin/settings", auth=stack.password).status_code == 200
    assert ask(stack, "/api/health").json() is True and ask(stack, "/").status_code == 200
    page = ask(stack, "/deployments")
    assert page.headers["x-frame-options"] == "DENY" and "access-control-allow-origin" not in page.headers


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another account")
def test_list_of_services__is_open_to_its_own_account_only(stack: LocalStack) -> None:
    path = "/api/deployments/filter"
    assert "deploy-service" in ask(stack, path, {}).text
    for other in (path, f"/api{SECRETS}"):
        asked = ["/usr/bin/env", "python3", "-I", "-c", ASK, stack.ui + other]
        assert subprocess.run(asked, user=OTHER, cwd="/", capture_output=True, check=True, text=True).stdout == "401\n"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_page_of_another_origin__is_refused_with_and_without_the_password(stack: LocalStack, origin: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,authorization"}
    for auth in (None, stack.password):
        for path in (f"/api{SECRETS}", "/api/deployments/filter", "/api/health", "/sign-in"):
            for answer in (
                ask(stack, path, {}, headers={"Origin": origin}, auth=auth),
                ask(stack, path, method="OPTIONS", headers={"Origin": origin, **asked}, auth=auth),
            ):
                assert answer.status_code == 403 and "access-control-allow-origin" not in answer.headers


def test_foreign_host__is_refused_also_for_health_and_pages(stack: LocalStack) -> None:
    for path in ("/api/health", "/", "/sign-in", "/ui-settings", f"/api{SECRETS}"):
        assert ask(stack, path, headers={"Host": f"evil.example:{stack.port}"}, auth=stack.password).status_code == 421


@pytest.mark.parametrize(
    "path", ["/api/events/in", "/api/events/out", "/api/logs/out", "/api/task_runs/subscriptions/scheduled"]
)
def test_websocket__wants_the_password_and_its_own_origin(stack: LocalStack, path: str) -> None:
    url = stack.ui.replace("http", "ws") + path

    async def connected(token: str | None, protocols: list[str] | None = ["prefect"], **more: Any) -> bool:  # noqa: B006
        try:
            async with websockets.connect(url, subprotocols=protocols, proxy=None, **more) as socket:  # type: ignore[arg-type]
                await socket.send(json.dumps({"type": "auth", "token": token}))
                return bool(json.loads(await socket.recv())["type"] == "auth_success")
        except (websockets.exceptions.WebSocketException, KeyError):
            return False

    async def all_of_them() -> list[bool]:
        right = ":".join(stack.password)
        return [
            await connected(right),
            await connected(right, origin=stack.ui),
            await connected("wrong"),
            await connected(None),
            await connected(None, None),
            await connected(right, origin="https://evil.example"),
            await connected(right, additional_headers={"Host": "evil.example"}),
        ]

    assert asyncio.run(all_of_them()) == [True, True, False, False, False, False, False]


def test_sign_in_link__gives_the_password_once_and_to_its_own_page_only(stack: LocalStack) -> None:
    link = stack.sign_in.partition("#")[2]
    assert "localStorage" in ask(stack, "/sign-in").text
    assert ask(stack, "/sign-in", {"link": link}).status_code == 403  # no page has asked
    assert ask(stack, "/sign-in", {"link": link}, headers={"Origin": "https://evil.example"}).status_code == 403
    own = {"Origin": stack.ui}
    for wrong in ("", "x" * 10_000, None, 1):
        assert ask(stack, "/sign-in", {"link": wrong}, headers=own).status_code == 403
    given = ask(stack, "/sign-in", {"link": link}, headers=own).json()["password"]
    assert ask(stack, f"/api{SECRETS}", {}, headers={"Authorization": f"Basic {given}"}).status_code == 200
    assert ask(stack, "/sign-in", {"link": link}, headers=own).status_code == 403


def test_user_interface__finds_its_api_where_it_came_from(stack: LocalStack) -> None:
    for host in (f"localhost:{stack.port}", "localhost:8080", f"127.0.0.1:{stack.port}"):
        assert ask(stack, "/ui-settings", headers={"Host": host}).json()["api_url"] == f"http://{host}/api"


def test_commands__find_the_password_also_with_the_address_set_by_hand(stack: LocalStack, thresher: Any) -> None:
    for more in ({}, {"PREFECT_API_URL": stack.api}, {"PREFECT_API_URL": f"http://localhost:{stack.port}/api"}):
        ran = thresher("pools", "list", env={**stack.environment, **more})
        assert ran.returncode == 0 and "public-cpu" in ran.stdout, ran.stderr


def test_commands__that_do_not_find_it_say_in_one_line_where_it_is(
    stack: LocalStack, thresher: Any, fields: Any, tmp_path: Path
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(json.dumps(fields()))
    lost = {"PREFECT_API_URL": stack.api, "THRESHER_STACK": str(tmp_path / "another")}
    for command in (("list",), ("run", spec)):
        ran = thresher(*command, env={**stack.environment, **lost})
        (said,) = [line for line in ran.stderr.splitlines() if line not in ("starting Prefect",)]
        assert ran.returncode == 1 and "HTTP 401" in said and "PREFECT_API_AUTH_STRING" in said
        assert str(tmp_path / "another" / "password") in said


def test_up__called_again_gives_another_link(stack: LocalStack, thresher: Any) -> None:
    again = thresher("up", env=stack.environment)
    assert again.returncode == 0 and again.stdout == f"{stack.ui}\n"
    link = again.stderr.partition(f"{stack.ui}/sign-in#")[2].split()[0]
    assert ask(stack, "/sign-in", {"link": link}, headers={"Origin": stack.ui}).status_code == 200


def test_password__is_kept_and_goes_to_nobody_else_who_listens_there(stack: LocalStack, thresher: Any) -> None:
    """Last: it ends the stack."""
    password = stack.password
    said = (stack.folder / "stack.json").read_text()
    assert stack.interrupt() == 0
    assert stack.password == password
    if os.geteuid() == 0:
        (stack.folder / "stack.json").write_text(said)
        command = ["/usr/bin/env", "python3", "-I", "-u", "-c", LISTEN, str(stack.port)]
        with subprocess.Popen(command, user=OTHER, cwd="/", stdout=subprocess.PIPE) as thief:
            try:
                processes.poll(lambda: _listens(stack.port), "the other server")
                assert thresher("list", env=stack.environment).returncode == 1
            finally:
                thief.kill()
            assert thief.stdout is not None
            heard = thief.stdout.read()
        assert b"Host" in heard and b"Authorization" not in heard


def _listens(port: int) -> bool:
    return listening_account(("127.0.0.1", port)) == OTHER
