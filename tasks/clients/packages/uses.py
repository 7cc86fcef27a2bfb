"""Which environments and package copies of the cache are in use, and removal of the others.

Each has a file ``<name>.used.lock``: a process that uses it holds a shared lock until it ends, however it ends, and
sets the file's time. Removal takes the exclusive lock, so that a process that wants to use it sees it whole or not at
all.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tasks.clients.processes.file_lock import locked
from tasks.clients.storage.temporary_names import unique_name

PLACES = {"environments": "environment", "packages": "package copy"}
"""Folders of the cache, each with what is in it."""
COMPLETE_ENVIRONMENT = ".complete"
_KEY = re.compile(r"(bare-)?[0-9a-f]{24}\Z")
_LEFT_BEHIND = re.compile(r"(bare-)?[0-9a-f]{24}\..*\.(part|changed)\Z|uv-.*\.log\Z|.*\.pruned\Z")
_LEFT_SECONDS = 24 * 3600.0
"""Parts of what was being made are removed after this time only: it may still be made."""

_used: dict[Path, int] = {}


def use(made: Path) -> None:
    """Show other processes that this one uses a folder of the cache, until it ends. Call it before looking at it."""
    if made not in _used:
        _lock_of(made).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _used[made] = os.open(_lock_of(made), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(_used[made], fcntl.LOCK_SH)
    with suppress(OSError):
        os.utime(_used[made])


def is_used_elsewhere(made: Path) -> bool:
    """Whether another process uses a folder that this one :func:`use`s."""
    try:
        fcntl.flock(_used[made], fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        fcntl.flock(_used[made], fcntl.LOCK_SH)
    return False


@dataclass
class Pruned:
    """What was removed of a cache, and what was kept."""

    removed: list[str] = field(default_factory=list)
    bytes: int = 0
    in_use: int = 0
    recent: int = 0
    failed: list[str] = field(default_factory=list)


def prune(cache: Path, unused_seconds: float, *, dry: bool = False) -> Pruned:
    """Remove environments and package copies that no process uses, nor has used in this time; ``dry``: only count."""
    found = Pruned()
    now = time.time()
    for place in PLACES:
        home = cache / place
        for path in sorted(home.iterdir()) if home.is_dir() else ():
            if _KEY.match(path.name):
                _prune_one(path, now - unused_seconds, found, dry=dry)
            elif _LEFT_BEHIND.match(path.name) and _newest(path) < now - _LEFT_SECONDS:
                _remove(path, path, found, dry=dry)
    return found


def _prune_one(path: Path, before: float, found: Pruned, *, dry: bool) -> None:
    is_environment = path.parent.name == "environments"
    with ExitStack() as locks:
        if is_environment and not _hold(path.with_name(f"{path.name}.lock"), locks):
            found.in_use += 1  # it is being made
            return
        if not _hold(_lock_of(path), locks):
            found.in_use += 1
            return
        usable = not is_environment or (path / COMPLETE_ENVIRONMENT).exists()
        if usable and _last_use(path) > before:
            found.recent += 1
            return
        if dry:
            _remove(path, path, found, dry=True)
            return
        gone = path.with_name(f"{unique_name()}.pruned")
        try:
            path.rename(gone)
        except OSError:
            found.failed.append(str(path))
            return
    _remove(path, gone, found, dry=False)


def _hold(lock: Path, locks: ExitStack) -> bool:
    """Take an exclusive lock, unless it is held."""
    lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle = locked(lock, os.O_RDWR, 0o600)
    if handle is None:
        return False
    locks.callback(os.close, handle)
    return True


def _last_use(path: Path) -> float:
    """The last use; of what was made before uses were noted, when it was made."""
    state = _lock_of(path).stat()
    return max(state.st_mtime, path.stat().st_mtime)


def _remove(name: Path, path: Path, found: Pruned, *, dry: bool) -> None:
    size = _freed(path)
    if not dry:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        if path.exists():
            found.failed.append(str(path))
            return
    found.removed.append(str(name))
    found.bytes += size


def _freed(path: Path) -> int:
    """The bytes on disk that removing a path frees: not those of files that have another name elsewhere."""
    links: dict[tuple[int, int], list[int]] = {}
    for state in _states(path):
        links.setdefault((state.st_dev, state.st_ino), [0, state.st_nlink, state.st_blocks * 512])[0] += 1
    return sum(size for names, there, size in links.values() if names >= there)


def _newest(path: Path) -> float:
    return max((state.st_mtime for state in _states(path)), default=0.0)


def _states(path: Path) -> Iterator[os.stat_result]:
    """The state of a path and of each file below it."""
    with suppress(OSError):
        yield os.lstat(path)
        for folder, _, files in os.walk(path):
            for file in files:
                with suppress(OSError):
                    yield os.lstat(os.path.join(folder, file))


def _lock_of(made: Path) -> Path:
    """Of an environment next to it; of a copy in a folder of its own, since copies have no other lock files."""
    home = made.parent
    return (home if home.name == "environments" else home.with_name(f"{home.name}-used")) / f"{made.name}.used.lock"
