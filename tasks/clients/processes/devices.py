"""The accelerators of this machine, and their assignment to instances: no two instances share one."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from tasks.clients.processes.file_lock import locked
from tasks.domain.errors import ModelServerError
from tasks.domain.instance import DeviceKind

RETRY_SECONDS = 0.2
"""How often a waiting instance checks whether enough devices are free."""
_DEV = Path("/dev")
_FILES: dict[DeviceKind, re.Pattern[str]] = {"gpu": re.compile("nvidia[0-9]+"), "npu": re.compile("davinci[0-9]+")}
_VARIABLES: dict[DeviceKind, str] = {"gpu": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}


def device_kind(dev: Path = _DEV) -> DeviceKind:
    """The kind of accelerators of this machine; GPUs if it has both kinds or neither."""
    return "npu" if _count(dev, "npu") and not _count(dev, "gpu") else "gpu"


def devices(listed: Sequence[str] | None = None, dev: Path = _DEV) -> list[str]:
    """The accelerators that instances on this machine may use, as their libraries name them.

    The administrator's list (numbers or UUIDs, the same in every process of the machine); else the devices assigned to
    this process (CUDA_VISIBLE_DEVICES, ASCEND_RT_VISIBLE_DEVICES); else 0, 1, 2 ... up to the number of device files:
    the libraries count from 0 whatever the files are called, for example in a container that has only the last one.
    """
    if listed is not None:
        return _each_once(listed)
    kind = device_kind(dev)
    inherited = os.environ.get(_VARIABLES[kind])
    if inherited is not None:
        return _each_once(inherited.split(","))
    return [str(number) for number in range(_count(dev, kind))]


def _count(dev: Path, kind: DeviceKind) -> int:
    with suppress(OSError):
        return sum(1 for name in os.listdir(dev) if _FILES[kind].fullmatch(name))
    return 0


def _each_once(names: Iterable[str]) -> list[str]:
    """Names without repetition, up to the first that is not a device: the libraries read such a list this way."""
    found: dict[str, None] = {}
    for name in names:
        name = name.strip()
        if not name or name.startswith("-") or name in ("none", "void", "NoDevFiles"):
            break
        found[name] = None
    return list(found)


class DeviceLease:
    """Accelerators that belong to one instance until :meth:`close`, or until this process ends for any reason."""

    def __init__(self, names: Sequence[str], locks: Sequence[int]) -> None:
        self.devices = tuple(names)
        """Their names, for tasks.domain.instance.device_variables."""
        self._locks = list(locks)

    def close(self) -> None:
        """Release the accelerators; idempotent."""
        while self._locks:
            os.close(self._locks.pop())


async def lease(count: int, among: Sequence[str], folder: Path, flavor: str = "") -> DeviceLease:
    """``count`` accelerators out of ``among`` that no other process of this machine has leased in ``folder``.

    Waits until enough are free, and holds none while it waits, so two waiting instances cannot deadlock. Raises
    ModelServerError if the machine has too few, or if the folder cannot be used.
    """
    if count <= 0:
        return DeviceLease((), ())
    if count > len(among):
        there = f"{len(among)} ({', '.join(among)})" if among else "none"
        named = f"Flavor {flavor}" if flavor else "The flavor"
        raise ModelServerError(
            f"{named} needs {count} accelerator{'s' if count > 1 else ''}, this machine has {there}; contact the "
            "administrator of the resource pool, or choose a flavor that needs fewer."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            found = _take(count, among, folder)
            if found is not None:
                return found
            await asyncio.sleep(RETRY_SECONDS)
    except OSError as error:
        raise ModelServerError(
            f"The accelerators of this machine cannot be shared out: {error.strerror} ({error.filename or folder})."
        ) from error


def _take(count: int, among: Sequence[str], folder: Path) -> DeviceLease | None:
    """Lease all of them at once, or none."""
    guard = locked(folder / "guard.lock")
    if guard is None:
        return None
    taken: dict[str, int] = {}
    try:
        for name in among:
            if len(taken) == count:
                break
            lock = locked(folder / f"device-{quote(name, safe='')}.lock")
            if lock is not None:
                taken[name] = lock
        if len(taken) == count:
            found = DeviceLease(list(taken), list(taken.values()))
            taken = {}
            return found
        return None
    finally:
        for lock in taken.values():
            os.close(lock)
        os.close(guard)
