"""Ends a process and everything it started when the owner of the warden ends. Standard library only.

Run as ``python -I -S warden.py OPTION... LOG -- COMMAND...`` with a pipe as standard input (the lifeline), or as
``python -I -S warden.py --adopt PID`` for a process that is already running. The command's output goes to the file
LOG. The options, in this order: ``--root FOLDER`` (of this project), ``--mark NUMBER``, and optionally ``--memory
BYTES``, ``--cpu CORES``, ``--scratch FOLDER``, ``--rate BYTES``, ``--own``.

The lifeline begins with the command's environment (see :func:`environment_frame`). The warden's own environment is
readable by every process of its user, model servers included, and holds only what any program needs. The command is
confined: it cannot look into a process outside, nor send it a signal (see confinement.py). With ``--own`` it is a
program of Thresher's, which is not confined, and reads its environment from its standard input once its memory is
hidden.

When the lifeline closes (its owner closed it, ended, or was killed with signal 9), the command and every process below
it are ended: SIGTERM, then SIGKILL after a grace period. Daemons and processes in sessions of their own are also found,
because the warden is their reaper (Linux: PR_SET_CHILD_SUBREAPER). If the warden itself is killed, the kernel ends the
command (PR_SET_PDEATHSIG); the processes that the command started are found by NUMBER, which all of them carry (see
confinement.py).

An owner that ends the command gracefully writes a byte into the lifeline first. Otherwise no process is left to read
LOG, and LOG and the scratch folder are removed, as is the folder of LOG if it is then empty. With ``--own`` the scratch
folder is removed with its content whichever process ends first: the warden then waits for its owner's byte, or its
owner's end.

The output of a command without ``--own`` goes through a pipe, and BYTES a second of it into LOG (output_drain.py).

With ``--memory`` or ``--cpu`` the command and everything below it are held to these limits (see limits.py). If together
they use more memory, they are killed at once, and the last line of LOG says so.

The first line on standard output is the command's process id (and session), then a blank and the folder of its control
group if it has one, for an owner whose warden is killed. One more byte signals that the command itself has ended,
before its remaining processes are ended. The exit status is the command's, or 128 + the signal that ended it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import struct
import sys
import time

TYPE_CHECKING = False  # importing typing would take half of the warden's start-up time
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tasks.clients.processes.limits import ProcessBounds
    from tasks.clients.processes.output_drain import Drain

GRACE_SECONDS = 3.0
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_CHILD_SUBREAPER = 36


def _prctl(option: int, value: int) -> None:
    try:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)
    except (OSError, AttributeError):
        pass  # not Linux


def environment_frame(environment: Mapping[str, str]) -> bytes:
    """An environment as encoded at the start of a lifeline: the length of the rest, then NAME=VALUE entries, each with
    a NUL.
    """
    block = b"".join(os.fsencode(f"{name}={value}") + b"\0" for name, value in environment.items())
    return struct.pack("=Q", len(block)) + block


def _read(count: int) -> bytes:
    found = b""
    while len(found) < count:
        piece = os.read(0, min(count - len(found), 1 << 16))
        if not piece:
            sys.exit(137)  # the owner has ended
        found += piece
    return found


def _limited(given: Mapping[str, str], log: str) -> ProcessBounds | None:
    """The command's limits; None if it has no limits."""
    memory, cpu = given.get("--memory"), given.get("--cpu")
    if not memory and not cpu:
        return None
    from tasks.clients.processes.limits import ProcessBounds

    return ProcessBounds(int(memory) if memory else None, float(cpu) if cpu else None, log)


def _start(
    output: int, command: list[str], bounds: ProcessBounds | None, environment: bytes, own: bool, its_mark: int
) -> int:
    """Start the command as the leader of its own session, limited from the start; its process id."""
    held, release = os.pipe()
    private = os.pipe() if own else None
    warden = os.getpid()
    child = os.fork()
    if child:
        os.close(output)
        os.close(held)
        if bounds:
            bounds.apply(child)
        try:
            os.write(release, b".")
            if private:
                os.close(private[0])
                left = environment
                while left:
                    left = left[os.write(private[1], left) :]
        except OSError:
            pass  # the command was killed
        if private:
            os.close(private[1])
        os.close(release)
        return child
    try:
        os.setsid()
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(release)
        if os.getppid() != warden or not os.read(held, 1):  # the warden died in between
            os._exit(137)
        os.dup2(private[0] if private else os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if own:
            os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
        from tasks.clients.processes.confinement import confine, mark

        mark(its_mark)
        confine()
        given = dict(one.partition(b"=")[::2] for one in environment.split(b"\0") if one)
        os.execvpe(command[0], command, given)  # noqa: S606
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def stat(pid: int) -> list[bytes]:
    """The fields of /proc/PID/stat from the state on (proc_pid_stat(5)). Raises OSError if there is no such process."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    if not fields:  # it is just ending
        raise ProcessLookupError(pid)
    return fields


def stats() -> dict[int, list[bytes]]:
    """The stat of every process; empty if there is no /proc."""
    found: dict[int, list[bytes]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            try:
                found[int(name)] = stat(int(name))
            except OSError:
                continue
    return found


def below(root: int) -> set[int]:
    """The ids of all descendants of this process."""
    parents = {pid: int(fields[1]) for pid, fields in stats().items()}
    found: set[int] = set()
    grown = {root}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown and pid not in found}
        found |= grown
    return found


def _signal(pids: set[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except OSError:
            continue


def _reap(child: int) -> int | None:
    """Reap all ended children; the status of ``child`` if it is among them."""
    status = None
    while True:
        try:
            pid, raw = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return status
        if pid == 0:
            return status
        if pid == child:
            status = os.waitstatus_to_exitcode(raw)


def _end_all(child: int, bounds: ProcessBounds | None, drain: Drain | None, number: int = signal.SIGTERM) -> int | None:
    """End everything below the warden; the status of ``child`` if it was still running."""
    status = None
    deadline = time.monotonic() + GRACE_SECONDS
    signalled: set[int] = set()
    while True:
        found = _reap(child)
        status = found if found is not None else status
        alive = below(os.getpid())
        if drain:
            drain.flush()
        if not alive:
            return status
        if number == signal.SIGTERM and time.monotonic() > deadline:
            number, signalled = signal.SIGKILL, set()
        if number == signal.SIGTERM:
            _signal(alive - signalled, number)
            signalled |= alive
        else:
            if bounds and bounds.group:
                bounds.group.kill()
            _signal(alive, number)
        time.sleep(0.01)


def _say(text: str) -> None:
    try:
        os.write(1, text.encode())
    except OSError:
        pass  # the owner no longer reads


def _remove(log: str, scratch: str | None) -> None:
    if scratch:
        import shutil  # takes time to import

        shutil.rmtree(scratch, ignore_errors=True)
    try:
        os.unlink(log)
        os.rmdir(os.path.dirname(log))
    except OSError:
        pass


def _close_inherited() -> None:
    """Close file descriptors leaked by an event loop (uvloop: copies of both pipes): the command would inherit them."""
    try:
        opened = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        opened = list(range(256))
    for number in opened:
        if number > 2:
            try:
                os.close(number)
            except OSError:
                continue


def _output(log: str, own: bool, rate: str | None) -> tuple[Drain | None, int]:
    """The reader of the command's output (None if there is no pipe), and the command's file descriptor."""
    if own:
        return None, os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    from tasks.clients.processes.output_drain import BYTES_PER_SECOND, Drain

    drain = Drain(log, int(rate or 0) or BYTES_PER_SECOND)
    return drain, drain.write_end


def _exceeded(bounds: ProcessBounds) -> bool:
    """Whether everything below the warden together uses too much memory; checked only when due."""
    if bounds.seconds_to_next_look() != 0:
        return False
    from tasks.clients.processes.limits import tree

    return bounds.exceeded(tree(os.getpid()) or below(os.getpid()))


def _remove_scratch(folder: str) -> None:
    """Remove the folder once its owner no longer needs its content."""
    import shutil  # takes time to import

    os.read(0, 512)
    shutil.rmtree(folder, ignore_errors=True)


def guard(log: str, command: list[str], given: Mapping[str, str], own: bool) -> int:
    """Run the command, with the ``given`` options, until it ends or the lifeline closes; the exit status."""
    environment = _read(*struct.unpack("=Q", _read(8)))  # the command's, from the lifeline
    _close_inherited()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    bounds = _limited(given, log)
    drain, output = _output(log, own, given.get("--rate"))
    child = _start(output, command, bounds, environment, own, int(given["--mark"]))
    _say(f"{child} {bounds.group.path}\n" if bounds and bounds.group else f"{child}\n")
    status = None
    orphaned = True
    while status is None:
        rest = drain.rest_seconds() if drain else None
        pauses = [one for one in (bounds.seconds_to_next_look() if bounds else None, rest or None) if one is not None]
        read = [drain.descriptor] if drain and rest == 0 else []
        ready, _, _ = select.select([0, woken, *read], [], [], min(pauses, default=None))
        if drain and read and read[0] in ready:
            drain.take()
        if woken in ready:
            os.read(woken, 512)
            status = _reap(child)
        if 0 in ready:
            detail = os.read(0, 512)
            orphaned = orphaned and not detail
            if not detail:
                break
        if status is None and bounds and _exceeded(bounds):
            status = _end_all(child, bounds, drain, signal.SIGKILL)
    if status is not None:
        if drain:
            drain.flush()
        if bounds:
            bounds.ended(status)  # before the owner is notified and reads the log
        _say(".")
    found = _end_all(child, bounds, drain)
    if bounds:
        bounds.remove()
    scratch = given.get("--scratch")
    if status is None and orphaned:
        _remove(log, scratch)
    if scratch and own:
        _remove_scratch(scratch)
    status = found if status is None else status
    return 0 if status is None else status if status >= 0 else 128 - status


def adopt(pid: int) -> int:
    """Wait for the lifeline to close, then end this process; return early if it has ended."""
    try:
        handle = os.pidfd_open(pid)  # cannot be mistaken for a later process with the same number
    except (OSError, AttributeError):
        return 0
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    owned = True
    while owned:
        ready = select.select([0, handle], [], [])[0]
        if handle in ready:
            return 0
        owned = bool(os.read(0, 512))
    deadline = time.monotonic() + GRACE_SECONDS
    sent: int = signal.SIGTERM
    while True:
        try:
            # SIGTERM once, then signal 0 (only a check) until the grace period is over.
            signal.pidfd_send_signal(handle, sent)
        except OSError:
            return 0
        if select.select([handle], [], [], 0.02)[0]:
            return 0
        sent = signal.SIGKILL if time.monotonic() > deadline else 0


def main(arguments: list[str]) -> int:
    """Run with these command-line arguments; the exit status."""
    _prctl(PR_SET_DUMPABLE, 0)
    if arguments[0] == "--adopt":
        return adopt(int(arguments[1]))
    given: dict[str, str] = {}
    while arguments[0] in ("--root", "--mark", "--memory", "--cpu", "--scratch", "--rate"):
        given[arguments[0]] = arguments[1]
        arguments = arguments[2:]
    # A script run by its path and isolated does not find its own project. Appended last, so that nothing in that folder
    # shadows a module of the standard library.
    sys.path.append(given["--root"])
    if own := arguments[0] == "--own":
        arguments = arguments[1:]
    return guard(arguments[0], arguments[2:], given, own)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
