"""A package that loads its model in a thread of its own: ready once that has ended, whatever else runs."""

from __future__ import annotations

from typing import Any

import pytest

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any
WaitUntil = Any

PACKAGE = """
import asyncio, concurrent.futures, http.server, pathlib, queue, threading, time
from concurrent.futures import ThreadPoolExecutor
from model_service.tfserving_model_service import TfServingBaseService
def wait():
    while True:
        if pathlib.Path("go").exists():
            break
        time.sleep(0.01)
class Classifier(TfServingBaseService):
    def __init__(self, model_name, model_path):
        self.model = None
        self.queue = queue.Queue()
        self.event = threading.Event()
        self.running = True
{init}
    def load(self):
        wait()
        self.model = len
    def load_by_another(self):
        thread = threading.Thread(target=self.load)
        thread.start()
        thread.join()
    def load_in_a_pool(self):
        with ThreadPoolExecutor() as pool:
            pool.submit(self.load).result()
    def load_in_a_loop(self):
        async def work():
            while self.model is None:
                if pathlib.Path("go").exists():
                    self.model = len
                await asyncio.sleep(0.01)
        asyncio.run(work())
    def load_until_it_works(self):
        while True:
            try:
                pathlib.Path("go").read_text()
                self.model = len
                return
            except OSError:
                time.sleep(0.01)
    def load_when_told(self):
        while not self.event.is_set():
            self.try_to_load()
            time.sleep(0.01)
    def load_while_it_is_not_there(self):
        while self.running:
            if pathlib.Path("go").exists():
                self.model = len
                self.running = False
            time.sleep(0.01)
    def try_to_load(self):
        if pathlib.Path("go").exists():
            self.model = len
            self.event.set()
    def fail(self):
        wait()
        raise ValueError("weights are broken")
    def take_work(self):
        while self.running:
            self.queue.get()
    def watch(self):
        while not self.event.wait(3600):
            pass
    def beat(self):
        while True:
            try:
                time.sleep(3600)
            except OSError:
                for _ in range(3):
                    break
    def poll(self):
        while self.running:
            time.sleep(3600)
    def report(self):
        stop = self.event
        while not stop.is_set():
            self.count = 1
            time.sleep(3600)
    def serve(self):
        http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler).serve_forever()
    def _inference(self, data):
        return self.model(data)
"""


def package(*lines: str) -> str:
    return PACKAGE.replace("{init}", "\n".join(f"        {line}" for line in lines))


@pytest.mark.parametrize(
    "line",
    [
        "threading.Thread(target=self.load).start()",
        "threading.Thread(target=self.load_by_another).start()",
        "threading.Thread(target=self.load_in_a_pool).start()",
        "threading.Thread(target=self.load_in_a_loop).start()",
        "threading.Thread(target=self.load_until_it_works).start()",
        "threading.Thread(target=self.load_when_told).start()",
        "threading.Thread(target=self.load_while_it_is_not_there).start()",
        "self.pool = ThreadPoolExecutor(); self.pool.submit(self.load)",
        "threading.Timer(0, self.load).start()",
    ],
)
def test_server__is_ready_once_the_thread_that_loads_the_model_has_ended(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil, line: str
) -> None:
    folder = write_package(package(line))
    server = start_server(folder)
    wait_until(lambda: "has ended, which the package has started" in server.output(), "a server that waits")
    assert server.health() == 503
    assert server.post({}).status == 503
    (folder / "go").touch()
    assert server.ready().post({"a": 1}).json() == 1


@pytest.mark.parametrize(
    "line",
    [
        "threading.Thread(target=self.load, daemon=True).start()",
        "threading.Thread(target=self.take_work).start()",
        "threading.Thread(target=self.watch).start()",
        "threading.Thread(target=self.beat).start()",
        "threading.Thread(target=self.poll).start()",
        "threading.Thread(target=self.report).start()",
        "threading.Thread(target=self.serve).start()",
        "threading.Thread(target=self.queue.get).start()",
        "threading.Timer(3600, self.load).start()",
        "self.pool = ThreadPoolExecutor(); self.pool.submit(len, '').result()",
        "threading.Thread(target=asyncio.new_event_loop().run_forever).start()",
    ],
)
def test_server__does_not_wait_for_threads_in_the_background(
    write_package: WritePackage, start_server: StartServer, line: str
) -> None:
    server = start_server(write_package(package(line, "self.model = len"))).ready()
    assert server.post([1, 2]).json() == 2
    server.process.terminate()
    assert server.end() == 0


def test_server__cannot_start_if_the_thread_that_loads_the_model_fails(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(package("threading.Thread(target=self.fail, name='loader').start()"))
    server = start_server(folder)
    wait_until(lambda: "'loader' has ended" in server.output(), "a server that waits")
    (folder / "go").touch()
    assert server.end() == 1
    *_, last = server.output().splitlines()
    assert last == (
        "model server: cannot start: the thread 'loader', which the package has started to load the model, failed: "
        "ValueError: weights are broken"
    )
    assert server.output().count("ValueError: weights are broken") == 2  # once at the end of its traceback
    assert "in fail" in server.output() and "threads.py" not in server.output()


def test_thread_in_the_background__may_fail(
    write_package: WritePackage, start_server: StartServer, wait_until: WaitUntil
) -> None:
    folder = write_package(package("threading.Thread(target=self.fail, daemon=True).start()", "self.model = len"))
    server = start_server(folder).ready()
    (folder / "go").touch()
    wait_until(lambda: "ValueError: weights are broken" in server.output(), "the end of the thread")
    assert server.post([1]).json() == 1
