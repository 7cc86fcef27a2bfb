"""Temporary folders of killed processes are removed by the next run, and nobody else's: scratch_folders.py."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.support import ROOT

from tasks.clients.processes import process_identity
from tasks.clients.processes.scratch_folders import remove_left_folders, scratch_folder

MAKER = """
import sys
from tasks.clients.processes.scratch_folders import scratch_folder
made = scratch_folder()
(made / "instance.log").write_text("raw output")
print(made, flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The temporary folder."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


@pytest.fixture
def maker() -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A process with a folder of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAKER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, Path(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


Maker = tuple[subprocess.Popen[str], Path]


def test_folder__of_a_killed_process_is_removed_and_of_a_living_one_never(maker: Maker) -> None:
    process, folder = maker
    own = scratch_folder()
    assert (folder.stat().st_mode & 0o777, own.stat().st_mode & 0o777) == (0o700, 0o700)
    remove_left_folders()
    assert (folder / "instance.log").exists() and own.exists()
    process.kill()
    process.wait()
    remove_left_folders()
    assert not folder.exists() and own.exists()


def test_folder__of_another_machine_or_container_stays(maker: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    process, folder = maker
    process.kill()
    process.wait()
    monkeypatch.setattr(process_identity, "_place", lambda: "another")
    remove_left_folders()
    assert folder.exists()


def test_folder__whose_process_id_another_one_has_now_is_removed(place: Path, maker: Maker) -> None:
    process, folder = maker
    began = folder.name.split("-")[3]
    earlier = folder.with_name(folder.name.replace(f"-{process.pid}-{began}-", f"-{process.pid}-{int(began) - 1}-"))
    earlier.mkdir()
    remove_left_folders()
    assert not earlier.exists() and folder.exists()


@pytest.mark.parametrize("name", ["thresher-abcdefgh", "thresher-cache", "thresher-00-1-2-x", "thresher", "other"])
def test_folder__of_another_name_stays(place: Path, name: str) -> None:
    (place / name).mkdir()
    remove_left_folders()
    assert (place / name).exists()


def test_link__with_such_a_name_leads_to_no_removal(
    place: Path, maker: Maker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    process, folder = maker
    kept = tmp_path_factory.mktemp("kept")
    (kept / "file").touch()
    process.kill()
    process.wait()
    link = folder.with_name(f"{folder.name}x")
    os.symlink(kept, link)
    (folder / "inside").symlink_to(kept)
    remove_left_folders()
    assert (kept / "file").exists() and not folder.exists() and link.is_symlink()
