"""One stack per folder, whatever its port: the holder of the folder's lock runs it and publishes its address."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from deployments.terminal.output import say
from tasks.clients.processes.file_lock import locked
from tasks.domain.errors import ServerError
from tasks.domain.unexpected import unusable_folder
from tasks.prefect_side.stack_access import private_folder, stack_address, stack_file

LOCK_FILE = "lock"
_POLL_SECONDS = 0.2


@contextmanager
def claimed(folder: Path, seconds: float) -> Iterator[str | None]:
    """Hold the lock of the stack's folder and yield None, or yield the API address of the stack that holds it.

    A stack that is starting or stopping is waited for. Raises ServerError after waiting for ``seconds``, and CallError
    if the folder cannot be used.
    """
    deadline = time.monotonic() + seconds
    waiting = False
    while True:
        try:
            private_folder(folder)
            lock = locked(folder / LOCK_FILE, os.O_RDWR, 0o600)
        except OSError as error:
            raise unusable_folder("THRESHER_STACK", str(folder), error) from None
        if lock is not None:
            break
        if (url := stack_address()) and answers(url):
            yield url
            return
        if time.monotonic() > deadline:
            raise ServerError(
                f"Another stack in {folder} has been starting or stopping for more than {seconds:g} s. Its logs are "
                "there; THRESHER_STACK names the folder of a second stack."
            )
        if not waiting:
            say("Another stack is starting or stopping in the same folder: waiting ...")
            waiting = True
        time.sleep(_POLL_SECONDS)
    try:
        stack_file().unlink(missing_ok=True)  # left by a stack that was killed
        yield None
    finally:
        os.close(lock)


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
        return ask_stack("GET", f"{url}/health", timeout=2).ok
    except requests.RequestException:
        return False


def ask_stack(method: str, url: str, **options: Any) -> requests.Response:
    """The answer of a stack on this machine, whatever proxies are set. Raises requests.RequestException."""
    with requests.Session() as session:
        session.trust_env = False
        return session.request(method, url, **options)
