"""Names of files that are being written: no two processes have the same, wherever they run."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from clients.support import ROOT, run

from tasks.clients.storage import local_files, temporary_names
from tasks.clients.storage.temporary_names import open_new, renew, unique_name

NAMES = """
import os
os.getpid = lambda: 1
from tasks.clients.storage.temporary_names import unique_name
print(*(unique_name() for _ in range(50)))
"""
KEEPS_ITS_PROCESS_ID = {
    "control_groups.py": "a folder of the kernel's, made with mkdir, whose name tells who is to be gone before it goes",
    "process_identity.py": "no file: who does a run",
}


def test_names__of_processes_with_the_same_id_have_nothing_in_common() -> None:
    made = [
        subprocess.run([sys.executable, "-c", NAMES], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    first, second = ({*names.split()} for names in made)
    assert len(first) == len(second) == 50
    tokens = {name.partition("-")[0] for name in first | second}
    assert len(tokens) == 2
    assert all(len(token) >= 32 for token in tokens)


def test_names__of_a_forked_process_are_its_own() -> None:
    read, write = os.pipe()
    unique_name()
    pid = os.fork()
    if pid == 0:
        os.write(write, unique_name().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with os.fdopen(read) as told:
        child = told.read()
    assert child
    assert child.partition("-")[0] != unique_name().partition("-")[0]


def test_open_new__never_opens_a_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taken").write_bytes(b"another's")
    (tmp_path / "link").symlink_to(tmp_path / "taken")
    names = iter(["taken", "link", "free"])
    renewed = []
    monkeypatch.setattr(temporary_names, "unique_name", lambda: next(names))
    monkeypatch.setattr(temporary_names, "renew", lambda: renewed.append(True))
    descriptor, path = open_new(str(tmp_path))
    os.write(descriptor, b"own")
    os.close(descriptor)
    assert path == f"{tmp_path}/free"
    assert (tmp_path / "taken").read_bytes() == b"another's"
    assert len(renewed) == 2


def test_renew__gives_a_copied_process_other_names() -> None:
    before = unique_name()
    renew()
    assert unique_name().partition("-")[0] != before.partition("-")[0]


def test_write__leaves_the_temporary_file_of_another_alone_when_it_fails(tmp_path: Path) -> None:
    """What cannot be put in its place is removed again, and nothing else."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    (temporary / "another").write_bytes(b"another's")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    with pytest.raises(local_files.ObjectError):
        run(local_files.write(str(tmp_path), str(tmp_path / "folder"), b"data", str(temporary)))
    assert os.listdir(temporary) == ["another"]


def _names_by_process_id(path: Path) -> bool:
    """Whether a module makes a text of its process id."""
    texts = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.JoinedStr, ast.BinOp)))
    calls = (call for text in texts for call in ast.walk(text) if isinstance(call, ast.Call))
    return any(isinstance(call.func, ast.Attribute) and call.func.attr == "getpid" for call in calls)


def test_product__names_no_file_by_a_process_id() -> None:
    modules = [path for room in ("tasks", "flows", "deployments", "infra") for path in (ROOT / room).rglob("*.py")]
    assert {path.name for path in modules if _names_by_process_id(path)} == set(KEEPS_ITS_PROCESS_ID)
