"""`thresher up` while it runs: called again, and who may ask its server for what: programs, accounts, web pages."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import websockets
import yaml
from fakes import local_stack, processes
from fakes.local_stack import POOLS, LocalStack

from tasks.clients.processes.peers import listening_account
from tasks.prefect_side.stack_access import made_password, password_for

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
def called_twice(
    tmp_path_factory: pytest.TempPathFactory, session_folder: Path, _nothing_left_behind: None
) -> Iterator[tuple[LocalStack, LocalStack]]:
    """`thresher up`, called twice at once on two ports; the call that runs the stack is the first of the two."""
    folder, temporary = tmp_path_factory.mktemp("up"), session_folder / "up"
    pools = folder / "pools"
    for made in (temporary, pools):
        made.mkdir()
    for pool in ("public-cpu", "dedicated-example"):
        shutil.copy(POOLS / f"{pool}.yaml", pools)
    others = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    own = {"TMPDIR": str(temporary), "THRESHER_POOLS": str(pools)}
    with local_stack.called_twice(folder, others | own) as both:
        yield both


@pytest.fixture
def stack(called_twice: tuple[LocalStack, LocalStack]) -> LocalStack:
    """The stack that runs."""
    return called_twice[0]


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
    assert any("tasks.prefect_side.prefect_app" in line for line in lines)
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


def test_commands__find_the_password_also_with_the_address_set_by_hand(
    stack: LocalStack, thresher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_hand = f"http://localhost:{stack.port}/api"
    for more in ({}, {"PREFECT_API_URL": by_hand}):
        ran = thresher("pools", "list", env={**stack.environment, **more})
        assert ran.returncode == 0 and "public-cpu" in ran.stdout, ran.stderr
    monkeypatch.setenv("THRESHER_STACK", str(stack.folder))
    for url in (stack.api, by_hand):
        assert password_for(url) == ":".join(stack.password)
    assert password_for(f"http://127.0.0.1:{stack.port + 1}/api") == ""


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


def test_up__called_twice_at_once_on_two_ports_runs_one_stack(called_twice):
    stack, other = called_twice
    assert other.process.returncode == 0 and stack.process.poll() is None
    assert f"{stack.ui}\n" in stack.output.read_text() and f"{stack.ui}\n" in other.output.read_text()
    assert f"Runs already at {stack.ui}; --port is not used." in other.output.read_text()
    assert requests.get(f"{stack.api}/health", timeout=60).ok
    asked = ask(stack, "/api/work_pools/public-cpu/workers/filter", {}, auth=stack.password)
    workers = [one["name"] for one in asked.json()]
    assert workers == ["local public-cpu"]


def test_up__called_again_says_where_it_runs_and_leaves_it_as_it_is(
    called_twice, processes_of, thresher, fields, name, tmp_path
):
    stack, _ = called_twice
    own = {"auth": stack.password}
    assert requests.get(f"{stack.ui}/", timeout=60).ok and "Ctrl-C" in stack.output.read_text()
    pools = {one["name"] for one in ask(stack, "/api/work_pools/filter", {}, **own).json()}
    assert {"public-cpu", "dedicated-example", "console"} <= pools
    form = ask(stack, "/api/deployments/name/deploy_service/deploy-service", **own).json()
    assert form["work_pool_name"] == "console"
    asked = ask(stack, "/api/work_pools/console/workers/filter", {}, **own).json()
    assert [(one["name"], one["status"]) for one in asked] == [("local console", "ONLINE")]
    assert form["parameter_openapi_schema"]["definitions"]["BatchService"]["properties"]["resource_pool"]["enum"]

    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields(resource_pool="dedicated-example")))
    waiting = thresher("deploy", spec, env=stack.environment)
    assert waiting.returncode == 0 and "No worker of dedicated-example is running" in waiting.stderr
    assert "Stopped" in thresher("stop", name, env=stack.environment).stdout

    where = (stack.folder / "stack.json").read_text()
    log = (stack.folder / "server.log").read_text()
    again = thresher("up", "--port", stack.port, env=stack.environment)
    assert (again.returncode, again.stdout) == (0, f"{stack.ui}\n") and "Runs already" in again.stderr
    assert "--port" not in again.stderr
    link = again.stderr.partition(f"{stack.ui}/sign-in#")[2].split()[0]
    signed_in = requests.post(f"{stack.ui}/sign-in", json={"link": link}, headers={"Origin": stack.ui}, timeout=60)
    assert signed_in.status_code == 200 and link != stack.sign_in.partition("#")[2]
    assert (stack.folder / "stack.json").read_text() == where
    assert (stack.folder / "server.log").read_text().startswith(log)
    assert stack.process.poll() is None
    lock = str(stack.folder / "lock")
    assert lock in _open_files(stack.process.pid)
    others = [pid for pid in processes_of(Path(stack.environment["TMPDIR"])) if pid != stack.process.pid]
    assert others and not [pid for pid in others if lock in _open_files(pid)]


def test_password__is_kept(tmp_path: Path) -> None:
    """test_stack.py sees that the next stack has the same one."""
    made = made_password(tmp_path)
    (tmp_path / "password").chmod(0o644)
    assert made_password(tmp_path) == made and len(made) >= 32
    assert stat.S_IMODE((tmp_path / "password").stat().st_mode) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be another account")
def test_password__goes_to_nobody_else_who_listens_there(thresher: Any, tmp_path: Path) -> None:
    port = processes.free_port()
    made_password(tmp_path)
    (tmp_path / "stack.json").write_text(json.dumps({"api": f"http://127.0.0.1:{port}/api", "pid": 1}))
    command = ["/usr/bin/env", "python3", "-I", "-u", "-c", LISTEN, str(port)]
    with subprocess.Popen(command, user=OTHER, cwd="/", stdout=subprocess.PIPE) as thief:
        try:
            processes.poll(lambda: _listens(port), "the other server")
            assert thresher("list", env={"THRESHER_STACK": str(tmp_path)}).returncode == 1
        finally:
            thief.kill()
        assert thief.stdout is not None
        heard = thief.stdout.read()
    assert b"Host" in heard and b"Authorization" not in heard


def _listens(port: int) -> bool:
    return listening_account(("127.0.0.1", port)) == OTHER


def _open_files(pid: int) -> list[str]:
    """What a process has open; nothing if it has ended."""
    found = []
    with suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                found.append(os.readlink(link))
    return found
