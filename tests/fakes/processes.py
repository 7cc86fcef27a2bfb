"""What the fakes and the tests share: child processes that die with their parent, waiting for a condition, ports."""

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
"""Far beyond what anything here takes, so that a busy machine fails no test."""

FULL_LENGTH = os.environ.get("TESTS_FULL_LENGTH") == "1"
"""Whether outages last as long as they do in practice (``make soak``), and not a third of it."""
PAUSE_SHARE = 4
"""A pause between two looks is so many times as long as a look took, ..."""
LONGEST_PAUSE_SECONDS = 0.3
"""... but no longer than this."""

PYTHON_START = str(Path(__file__).parent / "python_start")
"""The PYTHONPATH of all that the tests start, ..."""
PYTHONPATH = os.pathsep.join([str(Path(__file__).parents[2]), PYTHON_START])
"""... and of what imports the project from anywhere."""

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
"""From here on the system gives ports to connections."""


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listened on a moment ago, and that no connection is given by the system.

    On a busy machine it takes long until a server listens on it, and other tests open connections all the time.
    """
    while True:
        port = random.SystemRandom().randrange(FIRST_PORT, FIRST_GIVEN_PORT)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """A port of 127.0.0.1 that refuses connections: it is taken, so nobody else gets it, and nothing listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def poll(condition: Callable[[], Any], what: object = "the condition", seconds: float = DEADLINE_SECONDS) -> Any:
    """Wait until the condition holds, at most until the deadline; what it gave.

    `what` names it should it never hold; if it can be called, it is asked then.
    """
    started = before = time.monotonic()
    while not (found := condition()):
        now = time.monotonic()
        assert now < started + seconds, f"waited {seconds:g} s in vain for {what() if callable(what) else what}"
        _pause(started, before)
        before = time.monotonic()
    return found


def _pause(started: float, before: float) -> None:
    """Wait between two looks of which the first began at ``before``, in a row that began at ``started``.

    Looking must not take the processor from what is waited for: most of the time is left to that.
    """
    now = time.monotonic()
    time.sleep(min(LONGEST_PAUSE_SECONDS, max(0.01, PAUSE_SHARE * (now - before), (now - started) / 50)))


@contextlib.contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[None]:
    """Do `work` in another thread while the block runs; what it raises, the end of the block raises."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        yield
    done.result()


def alive(pid: int) -> bool:
    """Whether the process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter when it vanishes between open and read
        return False


def start(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a process whose output goes to `log` and that is killed when this one ends."""
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            preexec_fn=die_with_parent,
        )


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, timeout_seconds: float) -> None:
    """Poll `ready` until it holds; raise `FakeDidNotStart` when the process ends or the time is over."""
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
    """End the process: SIGTERM, and SIGKILL when it has not obeyed in time. Harmless when it already ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
