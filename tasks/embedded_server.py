"""Prefect's embedded server: started on its own terms, and never outliving the process that needed it."""

from __future__ import annotations

import atexit
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tasks.clients.lifeline import adopt, children
from tasks.clients.proxies import spare_loopback
from tasks.domain.errors import RunError
from tasks.domain.paths import redact

_GUARD_SECONDS = 0.02
"""How often is looked whether the server's process is there."""
_SERVER = "prefect.server.api.server:create_app"
"""What the command line of an embedded server holds."""
_guarded: set[int] = set()


def start_server() -> None:
    """Start the embedded server, if no server is configured; it ends with this process, also if that is killed.

    Before there is an event loop, which would hear Ctrl-C only once the server is up. Raises RunError.
    """
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    spare_loopback()
    from prefect.settings import PREFECT_API_URL

    if PREFECT_API_URL.value():
        return
    from prefect.client.orchestration import get_client

    up = threading.Event()

    def guard() -> None:
        while not guard_server() and not up.wait(_GUARD_SECONDS):
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


def guard_server() -> bool:
    """Let an embedded server that this process has started end with it; whether there is one."""
    found = set(children(_SERVER))
    if fresh := found - _guarded:
        _guarded.update(fresh)
        guard = adopt(fresh)
        lifeline = guard.stdin
        assert lifeline is not None

        def end() -> None:
            lifeline.close()
            guard.wait()

        atexit.register(end)
    return bool(found)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Processes started meanwhile do not hear the terminal's Ctrl-C, which goes to all of its foreground processes.

    The embedded server must not: a run that is being stopped has still to tell it, and would wait for minutes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
