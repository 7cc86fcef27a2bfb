"""``thresher up`` as a process of its own, on a free port, in a folder of its own.

with local_stack(folder, environment) as stack:
    requests.get(stack.ui)
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fakes import prefect_servers, processes

START_SECONDS = 240.0
"""Far more than a server and its workers need to start."""
STOP_SECONDS = 90.0
POOLS = Path(__file__).parents[2] / "infra" / "pools"
"""The default pools of `thresher up`."""


@dataclass(frozen=True)
class LocalStack:
    """A running stack."""

    process: subprocess.Popen[bytes]
    port: int
    folder: Path
    """Where its server keeps its database and its logs."""
    output: Path
    """The file with its output."""
    environment: Mapping[str, str]

    @property
    def ui(self) -> str:
        """Address of the user interface."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def api(self) -> str:
        """Address of the API."""
        return f"{self.ui}/api"

    @property
    def password(self) -> tuple[str, str]:
        """The user and the password of its API."""
        user, _, password = (self.folder / "password").read_text().strip().partition(":")
        return user, password

    @property
    def sign_in(self) -> str:
        """The last sign-in link that it has printed."""
        return re.findall(rf"{self.ui}/sign-in#\S+", self.output.read_text())[-1]

    @contextlib.contextmanager
    def spoken_to(self) -> Iterator[None]:
        """Inside the block, this process's Prefect uses it: querying a service needs no other process."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        password = ":".join(self.password)
        with temporary_settings(updates={PREFECT_API_URL: self.api, PREFECT_API_AUTH_STRING: password}):
            yield

    def interrupt(self) -> int:
        """Interrupt it as Ctrl-C does; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)


@contextlib.contextmanager
def local_stack(folder: Path, environment: Mapping[str, str]) -> Iterator[LocalStack]:
    """A stack that is ready; it is interrupted at the end of the block if it still runs.

    Its only pool is public-cpu, unless the environment names the folder of others.
    """
    stack = _called(folder, "up.log", environment)
    with _ended(stack):
        processes.wait_until(
            lambda: f"{stack.ui}\n" in stack.output.read_text(), stack.process, stack.output, START_SECONDS
        )
        yield stack


@contextlib.contextmanager
def called_twice(folder: Path, environment: Mapping[str, str]) -> Iterator[tuple[LocalStack, LocalStack]]:
    """Like `local_stack`, but with two concurrent calls on two ports: the one that runs it, then the other, ended."""
    calls = [_called(folder, f"up-{number}.log", environment) for number in (1, 2)]

    def winner() -> list[LocalStack]:
        return [one for one in calls if all(f"{one.ui}\n" in call.output.read_text() for call in calls)]

    with _ended(calls[0]), _ended(calls[1]):
        (stack,) = processes.poll(winner, lambda: [call.output.read_text() for call in calls], START_SECONDS)
        (other,) = [call for call in calls if call is not stack]
        other.process.wait(STOP_SECONDS)
        yield stack, other


def _called(folder: Path, output: str, environment: Mapping[str, str]) -> LocalStack:
    folder.mkdir(parents=True, exist_ok=True)
    own = {**environment, "THRESHER_STACK": str(folder / "stack")}
    if "THRESHER_POOLS" not in own:  # each local pool has a worker, which takes a while to start
        (folder / "pools").mkdir(exist_ok=True)
        shutil.copy(POOLS / "public-cpu.yaml", folder / "pools")
        own["THRESHER_POOLS"] = str(folder / "pools")
    prefect_servers.migrated(folder / "stack" / "prefect" / "prefect.db")
    port = processes.free_port()
    return LocalStack(start_up(port, folder / output, own), port, folder / "stack", folder / output, own)


@contextlib.contextmanager
def _ended(stack: LocalStack) -> Iterator[None]:
    try:
        yield
    finally:
        try:
            if stack.process.poll() is None:
                stack.interrupt()
        finally:
            processes.stop(stack.process, STOP_SECONDS)


def start_up(port: int, output: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the command as from a terminal: Ctrl-C interrupts it."""

    def before() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        processes.die_with_parent()

    command = [str(Path(sys.executable).with_name("thresher")), "up", "--port", str(port)]
    with output.open("ab") as written:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.STDOUT, cwd=output.parent,
            env={**environment, "PATH": environment.get("PATH", os.defpath)}, preexec_fn=before,
        )  # fmt: skip
