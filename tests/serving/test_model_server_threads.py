"""Several requests at the same time."""

from __future__ import annotations

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any
WaitUntil = Any

GATE = """
import pathlib, time
from model_service.python_model_service import XgSklServingBaseService
def wait_for(name):
    end = time.monotonic() + 60
    while not pathlib.Path(name).exists() and time.monotonic() < end:
        time.sleep(0.01)
class Gate(XgSklServingBaseService):
    def _inference(self, data):
        with open("begun", "a") as begun:
            begun.write(data["name"] + "\\n")
        wait_for(data["until"])
        return data["name"]
"""


def begun(folder: Path) -> list[str]:
    """The requests that the GATE package has begun with."""
    file = folder / "begun"
    return file.read_text().split() if file.exists() else []


def test_server__answers_health_while_the_model_works(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(GATE)
    server = start_server(folder).ready()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(server.post, {"name": "slow", "until": "go"})
        wait_until(lambda: begun(folder) == ["slow"], "the request begins")
        assert server.health() == 200
        (folder / "go").touch()
        assert work.result().body == b"slow"


def test_server__runs_one_request_at_a_time_unless_told_otherwise(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(GATE)
    for threads in (None, "2"):
        (folder / "begun").unlink(missing_ok=True)
        (folder / "go").unlink(missing_ok=True)
        server = start_server(folder, MODEL_SERVER_THREADS=threads).ready()
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(server.post, {"name": "first", "until": "go"})
            wait_until(lambda: begun(folder) == ["first"], "the request begins")
            second = pool.submit(server.post, {"name": "second", "until": "first" if threads is None else "go"})
            if threads is None:
                # Nothing to wait for: what must not happen is given the time of a few more requests.
                assert [server.health() for _ in range(20)] == [200] * 20
                assert begun(folder) == ["first"]
                (folder / "first").touch()
            else:
                wait_until(lambda: begun(folder) == ["first", "second"], "the request begins")
            (folder / "go").touch()
            assert (first.result().body, second.result().body) == (b"first", b"second")
        server.process.terminate()
        assert server.end() == 0


def test_server__gives_up_waiting_requests_whose_client_has_gone(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(GATE)
    server = start_server(folder).ready()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(server.post, {"name": "first", "until": "go"})
        wait_until(lambda: begun(folder) == ["first"], "the request begins")
        gone = http.client.HTTPConnection("127.0.0.1", server.port)
        gone.request("POST", "/", json.dumps({"name": "gone", "until": "go"}))
        gone.close()
        wait_until(lambda: "its client has gone" in server.output(), "the server notices the lost client")
        (folder / "go").touch()
        assert first.result().status == 200
    assert server.post({"name": "last", "until": "go"}).status == 200
    assert begun(folder) == ["first", "last"]
