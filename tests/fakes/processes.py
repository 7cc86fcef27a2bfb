"""Child processes of the fakes: they die with their parent and start on a free port."""

from __future__ import annotations

import ctypes
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class FakeDidNotStart(RuntimeError):
    """The fake's process ended, or was not ready in time; the message ends with the last lines of its log."""


def die_with_parent() -> None:
    """Ask the kernel to kill this process when the thread that started it ends (for `preexec_fn`).

    The kernel watches the thread, not the process: start fakes from a thread that lives as long as they do.
    """
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port() -> int:
    """A port of 127.0.0.1 that nothing listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            cause = f"ended with code {process.returncode}" if ended else f"not ready after {timeout_seconds} s"
            tail = log.read_text(errors="replace")[-2000:] if log.exists() else ""
            raise FakeDidNotStart(f"{process.args!r}: {cause}\n{tail}")
        time.sleep(0.01)


def stop(process: subprocess.Popen[bytes], patience_seconds: float = 3.0) -> None:
    """End the process: SIGTERM, and SIGKILL when it has not obeyed in time. Harmless when it already ended."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
