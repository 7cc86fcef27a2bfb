"""Prefect's embedded server: only for its own process, which it never outlives.

Prefect would start one without a password, on a port that another account could take first. Here Prefect's class starts
the process in another way: with a fresh password, on a socket that is already bound.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import IO, Any

from tasks.clients.processes.lifeline import PRIVATE, adopt
from tasks.clients.surroundings.proxies import spare_loopback
from tasks.domain.errors import Problem, RunError, SpecificationError
from tasks.domain.instance import handed_on
from tasks.domain.paths import redact
from tasks.domain.unexpected import in_one_line
from tasks.prefect_side.environment import of_embedded_server, set_for_embedding

_DID_NOT_START = 3
"""uvicorn's exit code after a failed start."""
HOST = "127.0.0.1"


def start_server() -> None:
    """Start the embedded server, if no server is configured; it ends with this process, even if that is killed.

    Call it before there is an event loop, which would see Ctrl-C only once the server is up. Raises RunError, and
    SpecificationError if there is no place for its database.
    """
    set_for_embedding()
    spare_loopback()
    if not close_server():
        return
    _check_home()
    from prefect.client.orchestration import get_client

    try:
        with _ctrl_c_blocked():
            get_client(sync_client=True)
    except RuntimeError as error:
        detail, known = in_one_line(error)
        detail = detail if known else redact(str(error))
        raise RunError(f"The embedded Prefect server did not start: {detail}") from None


def _check_home() -> None:
    """Raises SpecificationError if Prefect's home is not writable.

    Prefect itself would retry for minutes, and log thousands of lines.
    """
    from prefect.settings import get_current_settings

    home = get_current_settings().home
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        expected = (
            f"should be a folder in which Prefect can keep its database ({error.strerror}): set PREFECT_HOME to one, "
            "or PREFECT_API_URL to the address of a server"
        )
        raise SpecificationError([Problem("PREFECT_HOME", str(home), expected)]) from None


def close_server() -> bool:
    """Restrict the embedded server, when Prefect starts it, to this process; whether there is to be one.

    False if another server is configured.
    """
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, get_current_settings

    if PREFECT_API_URL.value():
        return False
    from prefect import context
    from prefect.server.api.server import SubprocessASGIServer

    if isinstance(SubprocessASGIServer._instances.get(None), _closed_server()):
        return True
    password = f"embedded:{secrets.token_urlsafe(24)}"
    own = object.__new__(_closed_server())
    own.password = password
    SubprocessASGIServer._instances[None] = own
    own.__init__()
    found = context.SettingsContext.get()
    assert found is not None
    settings = get_current_settings().copy_with_update(updates={PREFECT_API_AUTH_STRING: password})
    if found is not context.GLOBAL_SETTINGS_CONTEXT:  # the caller's own settings, until their context is left
        context.SettingsContext(profile=found.profile, settings=settings).__enter__()
    everywhere = context.GLOBAL_SETTINGS_CONTEXT
    settings = everywhere.settings.copy_with_update(updates={PREFECT_API_AUTH_STRING: password})
    context.GLOBAL_SETTINGS_CONTEXT = context.SettingsContext(profile=everywhere.profile, settings=settings)
    return True


@cache
def _closed_server() -> type[Any]:
    """Prefect's class with our own process. The methods are Prefect's: a test checks that they still exist."""
    from prefect.server.api.server import SubprocessASGIServer
    from prefect.settings import get_current_settings

    class ClosedServer(SubprocessASGIServer):
        password: str
        _log: IO[bytes] | None = None
        _guard: subprocess.Popen[bytes]

        def find_available_port(self) -> int:
            return 0  # chosen by the kernel when the socket is bound

        def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
            if self._log is not None:
                raise RuntimeError(_last_words(self._log))
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 - the server's while it runs
            settings = get_current_settings().to_environment_variables(exclude_unset=True)
            environment = of_embedded_server(settings, self.password, f"http://{HOST}")
            with socket.socket() as listener:
                listener.bind((HOST, 0))
                self.port = listener.getsockname()[1]
                process = _private(environment, listener.fileno(), self._log)
            self._guard = adopt(process.pid)
            return process

        def stop(self) -> None:
            if self.server_process is not None:
                self._guard.communicate()  # its lifeline is closed: it ends the server
            super().stop()

    return ClosedServer


class _Process(subprocess.Popen[bytes]):
    """Prefect checks only for uvicorn's exit code, and would wait for minutes for a process that ended with another."""

    def poll(self) -> int | None:
        return None if super().poll() is None else _DID_NOT_START


def _private(environment: dict[str, str], listener: int, log: IO[bytes]) -> subprocess.Popen[Any]:
    """The server's process. It gets its environment on standard input, where no other process of this account can read
    it.
    """
    plain = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
    process = _Process(
        [sys.executable, "-P", str(PRIVATE), "tasks.prefect_side.prefect_app", "--embedded", str(listener)],
        env=handed_on(environment) | plain, stdin=subprocess.PIPE, stdout=log, stderr=log, pass_fds=[listener],
    )  # fmt: skip
    assert process.stdin is not None
    block = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    with suppress(OSError):  # it has ended already
        process.stdin.write(block)
        process.stdin.close()
    return process


def _last_words(log: IO[bytes]) -> str:
    """The log line that shows why a server has ended."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and not line.startswith(("File", "raise"))]
    return (errors or lines or ["it has ended by itself"])[-1]


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Keep the terminal's Ctrl-C, which goes to all of its foreground processes, from processes started in this block.

    The embedded server must not get it: a run that is being stopped still reports to the server, and would otherwise
    wait for minutes.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
