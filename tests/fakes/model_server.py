"""A real model server that misbehaves on demand, in its own process: as a command, and as a context manager.

    python tests/fakes/model_server.py --port 8080 --service-time 50 --parallelism 8

or, in a model package, `run.sh` with `exec python .../model_server.py` (the port comes from $PORT). In tests:

    with FakeModelServer("--count-items") as model:
        requests.post(model.url + "/echo", data=b"...")
        model.stats()["items"][item_key(b"...")]

The markers that an item can carry are in `model_behaviour.py`. GET /health answers 200, GET /stats the counts as JSON,
which DELETE /stats forgets.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

if __name__ == "__main__":  # run as a command: the folder above is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from fakes import processes
from fakes.model_protocol import Connection, Server

LISTENS = re.compile(r"model server listens on 127\.0\.0\.1:(\d+)\n")


class FakeModelServer:
    """The server in its own process; `options` are those of the command line. Ready when GET /stats answers."""

    def __init__(
        self, *options: str, port: int = 0, wait_healthy: bool = True,
        timeout_seconds: float = processes.DEADLINE_SECONDS,
    ) -> None:  # fmt: skip
        self.port = port
        """The port; if none is given, it is chosen by the first start and kept from then on."""
        self._ready = "/health" if wait_healthy else "/stats"
        self._timeout_seconds = timeout_seconds
        self._options = options
        self._scratch = tempfile.TemporaryDirectory(prefix="fake-model-")
        self.log = Path(self._scratch.name) / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
        self._scratch.cleanup()

    def start(self, *, wait: bool = True) -> None:
        """Start the server (again, on the same port, after `stop` or its own death), and `wait` until it is ready."""
        command = [sys.executable, __file__, "--port", str(self.port), *self._options]
        self.process = processes.start(command, self.log, os.environ)
        if wait:
            processes.wait_until(self._answers, self.process, self.log, self._timeout_seconds)

    def stop(self) -> None:
        """Stop the server; harmless if it has ended."""
        if self.process:
            processes.stop(self.process)

    @property
    def url(self) -> str:
        """The server's address."""
        assert self.port, "the server has not been started"
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id."""
        assert self.process is not None, "the server has not been started"
        return self.process.pid

    def stats(self) -> dict[str, Any]:
        """Counts so far: requests by path, statuses, items and seen by item key, max_in_flight, connections, starts.

        Also the times (seconds since 1970) of the first request and the last response, `first_request_at` and
        `last_answer_at`; 0 without any POST.
        """
        import requests  # not in the server's process, where it would take a third of the start

        answer: dict[str, Any] = requests.get(self.url + "/stats", timeout=processes.DEADLINE_SECONDS).json()
        return answer

    def forget(self) -> None:
        """Reset its counts, for a test that follows others. A server that has ended is started again."""
        import requests

        if self.process is None or self.process.poll() is not None:
            self.start()
        self.stats()  # once it has answered, it has handled all earlier requests
        requests.delete(self.url + "/stats", timeout=processes.DEADLINE_SECONDS).raise_for_status()

    def _answers(self) -> bool:
        import requests

        if not self.port:  # the server prints the port it was given
            said = LISTENS.search(self.log.read_text())
            self.port = int(said[1]) if said else 0
        if not self.port:
            return False
        try:
            return requests.get(self.url + self._ready, timeout=2).status_code == 200
        except requests.RequestException:
            return False


def speed(text: str) -> tuple[int, float, int]:
    """The value of `--then`."""
    answers, milliseconds, parallelism = text.split(":")
    return int(answers), float(milliseconds), int(parallelism)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8080")))
    parser.add_argument("--state", default="", help="file that keeps the counts of marked items over restarts")
    parser.add_argument("--count-items", action="store_true", help="count the requests of each item (hashes each body)")
    parser.add_argument("--health", choices=("ok", "never"), default="ok")
    parser.add_argument("--health-when", default="", metavar="FILE", help="healthy only when this file exists")
    parser.add_argument(
        "--refuse-while", default="", metavar="FILE",
        help="while it exists, each POST gets its first word as the status, and its second one, if any, as Retry-After",
    )  # fmt: skip
    parser.add_argument(
        "--token", default="", help="401 unless the header Authorization is Bearer and this; but /stats"
    )
    parser.add_argument("--service-time", type=float, default=0.0, metavar="MS")
    parser.add_argument("--parallelism", type=int, default=1, help="requests served at once, with --service-time")
    parser.add_argument("--cpu-time", type=float, default=0.0, metavar="MS", help="of CPU a request, one at a time")
    parser.add_argument(
        "--then", action="append", default=[], metavar="ANSWERS:MS:PARALLELISM", type=speed,
        help="another speed once so many requests were served, with --service-time; may be given several times",
    )  # fmt: skip
    parser.add_argument("--exit-at-start", type=int, nargs="?", const=1, metavar="CODE")
    parser.add_argument("--spawn-child", choices=("child", "setsid"), nargs="?", const="child")
    return parser.parse_args(arguments)


async def run(options: argparse.Namespace) -> None:
    """Serve until SIGTERM or SIGINT."""
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    server = Server(options)
    listener = await loop.create_server(lambda: Connection(server), "127.0.0.1", options.port, backlog=1024)
    print(f"model server listens on 127.0.0.1:{listener.sockets[0].getsockname()[1]}", flush=True)
    await over.wait()
    listener.close()


def main() -> None:
    """Entry point."""
    options = parse()
    if options.exit_at_start is not None:
        print("model server: exits at start, as asked", file=sys.stderr)
        sys.exit(options.exit_at_start)
    if options.spawn_child:
        child = subprocess.Popen(["sleep", "3600"], start_new_session=options.spawn_child == "setsid")
        print(f"child {child.pid}", flush=True)
    uvloop.run(run(options))


if __name__ == "__main__":
    main()
