"""Starting processes that cannot outlive this one (see warden.py)."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tasks.clients.processes.confinement import MARK_BITS, has_mark
from tasks.clients.processes.control_groups import REMOVE_SECONDS, Group
from tasks.clients.processes.output_drain import BYTES_PER_SECOND
from tasks.clients.processes.private_process import ROOT
from tasks.clients.processes.warden import environment_frame, stats
from tasks.domain.instance import Limits, handed_on

WARDEN = Path(__file__).with_name("warden.py")
PRIVATE = Path(__file__).with_name("private_process.py")
STOP_SECONDS = 15.0
ENDED = (b"Z", b"X")
"""States of a process that only waits for its parent (proc_pid_stat(5))."""


class GuardedProcess:
    """A process under a warden: it and everything it starts end with :meth:`stop`, or with this process."""

    def __init__(self, process: asyncio.subprocess.Process, mark: int) -> None:
        self._process = process
        self._mark = mark
        self._session: int | None = None
        self._group: Group | None = None
        self._command_ended = asyncio.ensure_future(self._listen())
        self._ended = asyncio.ensure_future(self._wait())

    async def _listen(self) -> None:
        output = self._process.stdout
        assert output is not None
        line = await output.readline()
        if line.endswith(b"\n"):
            session, _, group = line.decode().rstrip("\n").partition(" ")
            self._session = int(session)
            self._group = Group(group) if group else None
        await output.read(1)

    async def _wait(self) -> int:
        status = await self._process.wait()
        await self._command_ended
        if status < 0 and self._session is not None:
            # The warden itself was killed. The kernel ends the command, but not the processes it has started.
            if self._group:
                self._group.kill()
            await _end_left(self._session, self._mark)
            if self._group:
                await _remove(self._group)
        return status if status >= 0 else 128 - status

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        limits: Limits | None = None,
        log_bytes_per_second: int = BYTES_PER_SECOND,
        scratch: Path | None = None,
    ) -> GuardedProcess:
        """Run ``command`` in ``folder`` with exactly ``environment``; its output is appended to ``log``.

        If it prints more than ``log_bytes_per_second`` for long, part of its output is dropped (output_drain.py). The
        folder ``scratch`` is removed with its content if this process ends without :meth:`stop`.

        ``limits`` apply to it and everything it starts together; if they exceed them, the last line of ``log`` says so
        (limits.py explains how each kind of machine enforces them). They are confined: see confinement.confine.
        """
        held = [] if limits is None else ["--memory", str(limits.memory_bytes), "--cpu", str(limits.cpu)]
        held += [] if scratch is None else ["--scratch", str(scratch)]
        held += ["--rate", str(log_bytes_per_second)]
        return await cls._start([*held, str(log), "--", *command], folder, environment)

    @classmethod
    async def start_own(
        cls,
        module: str,
        arguments: Sequence[str],
        *,
        folder: Path,
        environment: Mapping[str, str],
        log: Path,
        scratch: Path | None = None,
    ) -> GuardedProcess:
        """Run a module of this Python, one of our own or of a library that holds our keys, with ``environment``.

        No other process of the same user can read that environment at any time: see private_process.py. The folder
        ``scratch`` is removed with its content once the command has ended and :meth:`stop` was called, or this process
        has ended for any reason; to wait for the command's end before that, use :meth:`command_ended`.
        """
        held = [] if scratch is None else ["--scratch", str(scratch)]
        command = (sys.executable, "-P", str(PRIVATE), module, *arguments)
        return await cls._start([*held, "--own", str(log), "--", *command], folder, environment)

    @classmethod
    async def _start(cls, arguments: Sequence[str], folder: Path, environment: Mapping[str, str]) -> GuardedProcess:
        mark = secrets.randbits(MARK_BITS)
        plain = {name: value for name, value in environment.items() if name.startswith("PYTHON")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-S", str(WARDEN), "--root", str(ROOT), "--mark", str(mark), *arguments,
            cwd=folder, env=handed_on(environment) | plain, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            # Ctrl-C in the terminal goes to the flow, which stops its instances in order.
            start_new_session=True,
        )  # fmt: skip
        assert process.stdin is not None
        with suppress(OSError, RuntimeError):  # it has ended already
            process.stdin.write(environment_frame(environment))
        return cls(process, mark)

    @property
    def pid(self) -> int:
        """Process id of the warden; the command is its child."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the command itself still runs."""
        return not self._command_ended.done() and self._process.returncode is None

    async def command_ended(self) -> None:
        """Wait until the command itself has ended; the cleanup of its remaining processes may still be running."""
        await asyncio.wait([self._command_ended])

    async def ended(self) -> int:
        """Wait until it and everything below it has ended; the exit status, 128 + the signal if one ended it."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> None:
        """End it and everything below it; returns when nothing is left."""
        lifeline = self._process.stdin
        if lifeline is not None:
            with suppress(OSError, RuntimeError):  # uvloop raises RuntimeError for a closed pipe
                if not lifeline.is_closing():
                    lifeline.write(b".")
            lifeline.close()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.shield(self._ended)
        except TimeoutError:
            self._process.kill()
            await asyncio.shield(self._ended)


async def _end_left(session: int, mark: int) -> None:
    """Kill the remaining processes of a command: its session, and those with its mark in other sessions.

    Returns when none of them runs, or after a time-out if some cannot be killed.
    """
    with suppress(OSError):
        os.killpg(session, signal.SIGKILL)
    deadline = asyncio.get_running_loop().time() + STOP_SECONDS
    while (left := _running(session, mark)) and asyncio.get_running_loop().time() < deadline:
        for pid in left:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.01)


async def _remove(group: Group) -> None:
    """Remove the control group of a killed warden, once the kernel has removed the group's processes."""
    deadline = asyncio.get_running_loop().time() + REMOVE_SECONDS
    while not group.remove() and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.01)


def _running(session: int, mark: int) -> list[int]:
    """Running processes of a session or with a mark; empty if the system does not show them."""
    return [
        pid
        for pid, fields in stats().items()
        if fields[0] not in ENDED and (int(fields[3]) == session or has_mark(pid, mark))
    ]


def adopt(pid: int) -> subprocess.Popen[bytes]:
    """Guard a process that is not under a warden (Prefect's embedded server): it ends when this one does in any way.

    Returns the warden; nothing is ever written to its standard input, which closes when this process ends.
    """
    return subprocess.Popen(
        [sys.executable, "-I", "-S", str(WARDEN), "--adopt", str(pid)],
        env=handed_on(os.environ), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
