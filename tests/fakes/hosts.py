"""Several hosts on one machine: network namespaces, each connected to one switch by a cable that can be pulled.

    with Network() as network:
        storage = network.host("storage")
        with storage.inside(), S3Server(folder, address=storage.address) as s3:
            ...

Processes started inside a host use its network; files and process ids are those of the machine. Nothing, not even the
switch, is in the network of the machine itself, so any number of networks may have the same addresses.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from fakes import processes

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
_NAMED = Path("/run/netns")
_NAME = re.compile(r"hosts-(\d+)-.+")
_NUMBERS = itertools.count()
_PORT = "cable"


def why_not() -> str:
    """Why this machine cannot have such hosts; empty if it can."""
    name = f"hosts-{os.getpid()}-probe"
    try:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
        if made.returncode:
            return f"network namespaces are not permitted here: {made.stderr.strip()}"
        try:
            link = ["ip", "-n", name, "link", "add", "switch", "type", "bridge"]
            linked = subprocess.run(link, capture_output=True, text=True, check=False)
            return f"bridges are not permitted here: {linked.stderr.strip()}" if linked.returncode else ""
        finally:
            _ip("netns", "del", name)
    except FileNotFoundError:
        return "the program ip (iproute2) is not installed"


class Network:
    """A switch and its hosts, as a context manager that ends all their processes."""

    def __init__(self) -> None:
        self._prefix = f"hosts-{os.getpid()}-{next(_NUMBERS)}"
        self._switch = f"{self._prefix}-switch"
        self._hosts: list[Host] = []

    def __enter__(self) -> Self:
        _remove_those_of_dead_processes()
        _ip("netns", "add", self._switch)
        try:
            _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "switch", "up")
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._remove()

    def host(self, name: str) -> Host:
        """A new host, connected to the switch."""
        host = Host(name, f"{self._prefix}-{name}", self._switch, f"10.77.0.{len(self._hosts) + 1}")
        self._hosts.append(host)
        host._make()
        return host

    def _remove(self) -> None:
        with contextlib.ExitStack() as stack:
            for name in [self._switch] + [host.namespace for host in self._hosts]:
                if (_NAMED / name).exists():
                    stack.callback(_remove, name)


class Host:
    """One host. The other end of its cable is in the switch."""

    def __init__(self, name: str, namespace: str, switch: str, address: str) -> None:
        self.name = name
        self.namespace = namespace
        self.address = address
        self._switch = switch

    def _make(self) -> None:
        _ip("netns", "add", self.namespace)
        cable = ["link", "add", "name", self.name, "type", "veth", "peer", "name", _PORT, "netns", self.namespace]
        _ip("-n", self._switch, *cable)
        _ip("-n", self._switch, "link", "set", "dev", self.name, "master", "switch")
        _ip("-n", self.namespace, "link", "set", "lo", "up")
        _ip("-n", self.namespace, "address", "add", f"{self.address}/24", "dev", _PORT)
        _ip("-n", self.namespace, "link", "set", _PORT, "up")
        self.mend()

    def cut(self) -> None:
        """Pull the cable: all packets sent from now on, in either direction, are lost."""
        _ip("-n", self._switch, "link", "set", "dev", self.name, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("-n", self._switch, "link", "set", "dev", self.name, "up")

    def down(self) -> None:
        """Switch the interface off: sending on this host fails at once, as there is no network."""
        _ip("-n", self.namespace, "link", "set", _PORT, "down")

    def up(self) -> None:
        """Switch it on again."""
        _ip("-n", self.namespace, "link", "set", _PORT, "up")

    def cut_off_from(self, other: Host) -> None:
        """Make one other host unreachable from this one."""
        _ip("-n", self.namespace, "route", "replace", "unreachable", f"{other.address}/32")

    def reach(self, other: Host) -> None:
        """Undo :meth:`cut_off_from`, if it was done."""
        if _ip("-n", self.namespace, "route", "show", "type", "unreachable", f"{other.address}/32"):
            _ip("-n", self.namespace, "route", "del", "unreachable", f"{other.address}/32")

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Inside the block, the calling thread is on this host, with its connections and the processes it starts."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            own = os.open(_NAMED / self.namespace, os.O_RDONLY)
            try:
                _enter(own)
            finally:
                os.close(own)
            try:
                yield
            finally:
                _enter(before)
        finally:
            os.close(before)

    def start(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a process on this host, with its output in `log`; it is killed when this one ends."""
        with self.inside():
            return processes.start(command, log, environment)

    @property
    def pids(self) -> list[int]:
        """Ids of the processes that run on this host."""
        return _pids(self.namespace)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    assert not done.returncode, f"ip {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def _enter(namespace: int) -> None:
    if _LIBC.setns(namespace, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _pids(namespace: str) -> list[int]:
    """Processes that are there with every thread: the tests' own process has at most one thread there."""
    return [pid for pid in map(int, _ip("netns", "pids", namespace).split()) if pid != os.getpid()]


def _remove(namespace: str) -> None:
    def none_left() -> bool:
        pids = _pids(namespace)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not any(map(processes.alive, pids))

    processes.poll(none_left, f"the processes in {namespace} to end")
    _ip("netns", "del", namespace)


def _remove_those_of_dead_processes() -> None:
    for path in _NAMED.glob("hosts-*") if _NAMED.exists() else ():
        made = _NAME.fullmatch(path.name)
        if made and not processes.alive(int(made[1])):
            _remove(path.name)
