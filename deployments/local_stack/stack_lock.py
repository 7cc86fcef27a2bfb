"""One stack per folder, whatever its port: the holder of the folder's lock runs it and publishes its address."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from deployments.terminal.output import say
from tasks.domain.errors import ServerError
from tasks.domain.unexpected import unusable_folder
from tasks.prefect_side.stack_access import private_folder, stack_address, stack_file

LOCK_FILE = "lock"
_POLL_SECONDS = 0.2


@contextmanager
def claimed(folder: Path, seconds: float) -> Iterator[str | None]:
    """Hold the lock of the stack's folder and yield None, or yield the API address of the stack that holds it.

    A stack that is starting or stopping is waited for. The kernel releases the lock of a killed process, and no child
    inherits it. Raises ServerError after waiting for ``seconds``, and CallError if the folder cannot be used.
    """
    try:
        private_folder(folder)
        lock = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable_folder("THRESHER_STACK", str(folder), error) from None
    try:
        running = _running(lock, folder, seconds)
        if running is None:
            stack_file().unlink(missing_ok=True)  # left by a stack that was killed
        yield running
    finally:
        os.close(lock)


def _running(lock: int, folder: Path, seconds: float) -> str | None:
    deadline = time.monotonic() + seconds
    waiting = False
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            pass
        except OSError as error:
            raise unusable_folder("THRESHER_STACK", str(folder), error) from None
        if (url := stack_address()) and answers(url):
            return url
        if time.monotonic() > deadline:
            raise ServerError(
                f"Another stack in {folder} has been starting or stopping for more than {seconds:g} s. Its logs are "
                "there; THRESHER_STACK names the folder of a second stack."
            )
        if not waiting:
            say("Another stack is starting or stopping in the same folder: waiting ...")
            waiting = True
        time.sleep(_POLL_SECONDS)


@contextmanager
def announced(url: str) -> Iterator[None]:
    """Inside the block, commands without PREFECT_API_URL find this stack. For the holder of the lock only."""
    path = stack_file()
    path.write_text(json.dumps({"api": url, "pid": os.getpid()}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def answers(url: str) -> bool:
    """Whether a Prefect server answers at this address."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{url}/health", timeout=2).ok
    except requests.RequestException:
        return False
