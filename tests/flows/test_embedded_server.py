"""The embedded Prefect server answers the process that has started it, and nobody else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import requests
from fakes import processes
from fakes.processes import die_with_parent

from tasks.domain.errors import SpecificationError

pytestmark = pytest.mark.slow

CALLER = """
import asyncio, sys
from flows.calling import callable_flow

@callable_flow(name="waits", persist_result=False)
async def waits():
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_AUTH_STRING
    async with get_client() as client:
        await client.hello()
        print(client.api_url, PREFECT_API_AUTH_STRING.value(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)

async def awaited():
    await waits()

if sys.argv[1] == "called": waits()
elif sys.argv[1] == "awaited": asyncio.run(awaited())
else:
    from prefect.settings import PREFECT_LOGGING_LEVEL, temporary_settings
    with temporary_settings({PREFECT_LOGGING_LEVEL: "DEBUG"}): waits()
"""


@pytest.mark.parametrize(
    "how", [pytest.param("called", marks=pytest.mark.soak), "awaited", "with settings of the caller's own"]
)
def test_embedded_server__wants_a_password_that_only_its_own_process_knows(
    thresher: Any, tmp_path: Path, processes_of: Callable[[Path], Mapping[int, str]], poll: Any, how: str
) -> None:
    own = tmp_path / "tmp"
    own.mkdir()
    environment = thresher.environment({"TMPDIR": str(own), "PYTHONPATH": processes.PYTHONPATH})
    caller = subprocess.Popen(
        [sys.executable, "-c", CALLER, how], env=environment, cwd=tmp_path, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=(tmp_path / "log").open("wb"), preexec_fn=die_with_parent,
    )  # fmt: skip
    with caller:
        assert caller.stdout is not None and caller.stdin is not None
        line = caller.stdout.readline().split()
        assert len(line) == 2, (tmp_path / "log").read_text()[-3000:]
        api, password = line[0].rstrip("/"), line[1]
        user, _, word = password.partition(":")
        assert len(word) >= 32
        for path in ("/admin/settings", "/docs", "/openapi.json"):
            assert requests.get(api + path, timeout=60).status_code == 401
        for path in ("/block_documents/filter", "/deployments/filter"):
            assert requests.post(api + path, json={}, timeout=60).status_code == 401
            right = {"json": {}, "timeout": 60, "auth": (user, word)}
            assert requests.post(api + path, **right).status_code == 200
            assert requests.post(api + path, **right, headers={"Origin": "null"}).status_code == 403
            assert requests.post(api + path, **right, headers={"Host": "evil.example"}).status_code == 421
        running = processes_of(own)
        assert any("tasks.prefect_side.prefect_app" in command for command in running.values())
        for pid, command in running.items():
            assert word not in command
            assert word.encode() not in Path(f"/proc/{pid}/environ").read_bytes()
        assert b"0100007F" in _listening(api)
        caller.stdin.write("\n")
        caller.stdin.close()
        assert caller.wait(120) == 0, (tmp_path / "log").read_text()[-3000:]
    poll(lambda: not processes_of(own), lambda: processes_of(own))


@pytest.mark.parametrize("home", ["/proc/nope", "home"])
def test_embedded_server__without_a_place_for_its_database_does_not_start(tmp_path: Path, home: str) -> None:
    from prefect.settings import PREFECT_HOME, temporary_settings

    from tasks.prefect_side.embedded_server import _check_home

    (tmp_path / "home").write_text("no folder")
    place = tmp_path / home
    with (
        temporary_settings({PREFECT_HOME: place}),
        pytest.raises(SpecificationError, match="should be a folder in which Prefect can keep its database") as raised,
    ):
        _check_home()
    assert str(raised.value).startswith(f"PREFECT_HOME = '{place}': ")


def test_prefect__still_starts_its_embedded_server_the_way_that_is_replaced() -> None:
    """Three methods of Prefect's are overridden: were they renamed, a server without a password would start."""
    from prefect.server.api.server import SubprocessASGIServer

    from tasks.prefect_side.embedded_server import _closed_server

    made = _closed_server()
    for method in ("find_available_port", "_run_uvicorn_command", "stop"):
        assert callable(getattr(SubprocessASGIServer, method)) and method in vars(made)


def _listening(api: str) -> bytes:
    port = int(api.removesuffix("/api").rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_bytes().splitlines()
    (address,) = [
        line.split()[1] for line in lines if line.split()[1].endswith(b":%04X" % port) and line.split()[3] == b"0A"
    ]
    return address
