"""Helpers for fakes and tests: child processes that die with their parent, waiting for a condition, ports."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

DEADLINE_SECONDS = 180.0
"""Far more than anything here takes, so that no test fails on a busy machine."""

FULL_LENGTH = os.environ.get("TESTS_FULL_LENGTH") == "1"
"""Whether outages last as long as in practice (``make soak``), not a third of that."""
PAUSE_SHARE = 4
"""A pause between two polls is this many times as long as a poll took, ..."""
LONGEST_PAUSE_SECONDS = 0.3
"""... but no longer than this."""

PYTHON_START = str(Path(__file__).parent / "python_start")
"""The PYTHONPATH of all processes that the tests start, ..."""
PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[2]), PYTHON_START])
"""... and of those that import the project from any folder."""

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class FakeDidNotStart(RuntimeError):
    """The fake's process ended, or was not ready in time; the message ends with the last lines of its log."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends (for `preexec_fn`).

    The kernel watches the thread, not the process: start fakes from a thread that lives as long as they do.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


FIRST_PORT = 10_000
FIRST_GIVEN_PORT = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
"""The first of the ports that the system assigns to connections."""


def free_port() -> int:
    """A port of 127.0.0.1 that was free a moment ago, and that the system does not assign to connections.

    On a busy machine it takes long until a server listens on it, and other tests open connections all the time.
    """
    while True:
        port = random.SystemRandom().randrange(FIRST_PORT, FIRST_GIVEN_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections: it is bound, so no other process gets it, but not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def poll(condition: Callable[[], Any], what: object = "the condition", seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait until the condition holds, at most until the deadline; its value.

    `what` describes it in the error message; if it is callable, it is called only for that.
    """
    started = before = time.monotonic()
    while not (found := condition()):
        now = time.monotonic()
        assert now < started + seconds, f"waited {seconds:g} s in vain for {what() if callable(what) else what}"
        _pause(started, before)
        before = time.monotonic()
    return found


def _pause(started: float, before: float) -> None:
    """Wait between two polls; the last one began at ``before``, the first of all at ``started``.

    Polling must leave most of the processor to the process that is waited for.
    """
    now = time.monotonic()
    time.sleep(min(LONGEST_PAUSE_SECONDS, max(0.01, PAUSE_SHARE * (now - before), (now - started) / 50)))


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in another thread while the block runs; the end of the block raises its exceptions."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
    done.result()


def alive(pid: int) -> bool:
    """Whether the process is running (a zombie is not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends between open and read
        return False


def start(
    command: Sequence[str], log: Path, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process with its output in `log`; it is killed when this one ends."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            preexec_fn=die_with_parent,
        )


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, timeout_seconds: float) -> None:
    """Poll `ready` until it holds; raise `FakeDidNotStart` if the process ends or the time is up."""
    started = before = time.monotonic()
    while not ready():
        ended = process.poll() is not None
        if ended or time.monotonic() > started + timeout_seconds:
            cause = f"ended with code {process.returncode}" if ended else f"not ready after {timeout_seconds} s"
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise FakeDidNotStart(f"{process.args!r}: {cause}\n{tail}")
        _pause(started, before)
        before = time.monotonic()


def stop(process: subprocess.Popen[bytes], patience_seconds: float = 3.0) -> None:
    """End the process: SIGTERM, and SIGKILL if that does not end it in time. Harmless if it has already ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
