"""What was written is synced before anything relies on it."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from clients.support import run

from tasks.clients.storage import durable
from tasks.clients.storage.durable import FileSystemSync, sync_file_system, sync_folder


def test_sync__of_a_real_folder_works_and_of_none_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    sync_file_system(str(tmp_path))
    sync_folder(str(tmp_path))
    for gone in (sync_file_system, sync_folder):
        with pytest.raises(FileNotFoundError):
            gone(str(tmp_path / "none"))
        with pytest.raises(NotADirectoryError):
            gone(str(tmp_path / "file"))


def test_sync__of_many_who_wait_is_done_once_and_not_before_they_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[set[str]] = []
    go = threading.Event()
    first = threading.Event()

    def slow(folder: str) -> None:
        begun.append(set(os.listdir(folder)))
        first.set()
        go.wait(30)

    monkeypatch.setattr(durable, "sync_file_system", slow)

    async def work() -> None:
        syncs = FileSystemSync(str(tmp_path))
        (tmp_path / "a").touch()
        one = asyncio.ensure_future(syncs.sync())
        await asyncio.to_thread(first.wait, 30)
        (tmp_path / "b").touch()
        more = [asyncio.ensure_future(syncs.sync()) for _ in range(20)]
        await asyncio.sleep(0)
        assert not any(each.done() for each in (one, *more))
        go.set()
        await asyncio.gather(one, *more)

    run(work())
    assert begun == [{"a"}, {"a", "b"}]


def test_sync__that_fails_is_told_to_those_that_waited_for_it_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(5, "Input/output error")]

    def once(folder: str) -> None:
        if failures:
            raise failures.pop()

    monkeypatch.setattr(durable, "sync_file_system", once)

    async def work() -> None:
        syncs = FileSystemSync(str(tmp_path))
        both = await asyncio.gather(syncs.sync(), syncs.sync(), return_exceptions=True)
        assert [type(one) for one in both] == [OSError, OSError]
        await syncs.sync()

    run(work())
