"""Prefect's embedded server: started on its own terms, and never outliving the command."""

from __future__ import annotations

import atexit
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.clients.lifeline import adopt_children
from tasks.domain.errors import RunError
from tasks.domain.paths import redact

_GUARD_SECONDS = 0.02
"""How often is looked whether the server's process is there."""
_guards: list[subprocess.Popen[bytes]] = []


def start_server() -> None:
    """Start the ephemeral server, if no server is configured; it ends with this process, also if that is killed.

    Before there is an event loop, which would hear Ctrl-C only once the server is up. Raises RunError.
    """
    from prefect.client.orchestration import get_client

    logging.getLogger("prefect").setLevel(os.environ["PREFECT_LOGGING_LEVEL"])
    up = threading.Event()

    def guard() -> None:
        while not _guarded() and not up.wait(_GUARD_SECONDS):
            continue

    guarding = threading.Thread(target=guard, daemon=True)
    guarding.start()
    try:
        with _ctrl_c_blocked():
            get_client(sync_client=True)
    except RuntimeError as error:
        raise RunError(f"The embedded Prefect server did not start: {redact(str(error))}") from None
    finally:
        up.set()
        guarding.join()


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Processes started meanwhile do not hear the terminal's Ctrl-C, which goes to all of its foreground processes.

    The ephemeral server must not: a run that is being stopped has still to tell it, and would wait for minutes.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _guarded() -> bool:
    """Let this process's children (the ephemeral server) end with it, once; whether there is something to guard."""
    if not _guards and (guard := adopt_children()) is not None and guard.stdin is not None:
        lifeline = guard.stdin
        _guards.append(guard)

        def end() -> None:
            lifeline.close()
            guard.wait()

        atexit.register(end)
    return bool(_guards)
