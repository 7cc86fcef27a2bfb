"""What is removed of the cache: never what a process uses, and what was used lately only if asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from clients.support import ROOT, run
from fakes.processes import die_with_parent

from tasks.clients.packages import uses
from tasks.clients.packages.environments import environment
from tasks.clients.packages.uses import prune, use

DAY = 24 * 3600.0
KEYS = [digit * 24 for digit in "abcdef0"]
USER = """
import sys, pathlib
from tasks.clients.packages.uses import use
use(pathlib.Path(sys.argv[1]))
print("used", flush=True)
sys.stdin.read()
"""


def made(cache: Path, place: str, key: str, *, days: float, complete: bool = True) -> Path:
    """An environment or a copy that was last used some days ago."""
    path = cache / place / key
    path.mkdir(parents=True)
    (path / "file").write_bytes(bytes(100_000))
    if complete:
        (path / (".complete" if place == "environments" else ".thresher-complete")).write_text("")
    lock = uses._lock_of(path)
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    for one in (lock, path):
        os.utime(one, (time.time() - days * DAY,) * 2)
    return path


def names(cache: Path) -> set[str]:
    homes = [cache / place for place in uses.PLACES if (cache / place).exists()]
    return {path.name for home in homes for path in home.iterdir() if path.suffix != ".lock"}


def test_prune__removes_what_was_not_used_for_some_time(tmp_path: Path) -> None:
    old = made(tmp_path, "environments", KEYS[0], days=31)
    copy = made(tmp_path, "packages", KEYS[1], days=31)
    made(tmp_path, "environments", KEYS[2], days=29)
    made(tmp_path, "packages", KEYS[3], days=1)
    half = made(tmp_path, "environments", KEYS[4], days=0, complete=False)
    (tmp_path / "environments" / "notes.txt").write_text("not ours")
    dry = prune(tmp_path, 30 * DAY, dry=True)
    found = prune(tmp_path, 30 * DAY)
    assert found.removed == dry.removed == [str(old), str(half), str(copy)]
    assert found.bytes == dry.bytes >= 300_000
    assert (found.in_use, found.recent, found.failed) == (0, 2, [])
    assert names(tmp_path) == {KEYS[2], KEYS[3], "notes.txt"}
    assert len(prune(tmp_path, 0).removed) == 2 and names(tmp_path) == {"notes.txt"}
    assert prune(tmp_path / "nowhere", 0).removed == []


def test_prune__counts_no_bytes_of_files_that_have_another_name(tmp_path: Path) -> None:
    old = made(tmp_path, "environments", KEYS[0], days=31)
    os.link(old / "file", tmp_path / "elsewhere")
    assert prune(tmp_path, DAY).bytes < 50_000


def test_prune__leaves_what_a_process_uses_until_that_has_ended(tmp_path: Path) -> None:
    used = made(tmp_path, "environments", KEYS[0], days=99)
    copy = made(tmp_path, "packages", KEYS[1], days=99)
    process = subprocess.Popen(
        [sys.executable, "-c", USER, str(used)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        assert process.stdout is not None and process.stdout.readline() == b"used\n"
        use(copy)  # in this process
        found = prune(tmp_path, 0)
        assert (found.in_use, found.removed, names(tmp_path)) == (2, [], {used.name, copy.name})
    finally:
        process.kill()
        process.communicate()
    os.close(uses._used.pop(copy))
    # Its last use was just now, however old it is.
    assert prune(tmp_path, DAY).recent == 2
    assert prune(tmp_path, 0).removed == [str(used), str(copy)]


def test_prune__removes_what_killed_processes_have_left_after_a_day(tmp_path: Path) -> None:
    left = [
        tmp_path / "packages" / f"{KEYS[0]}.x1.part", tmp_path / "packages" / f"{KEYS[0]}.x2.changed",
        tmp_path / "environments" / "1.pruned",
    ]  # fmt: skip
    for path in left:
        path.mkdir(parents=True)
        (path / "file").write_text("x")
    log = tmp_path / "environments" / "uv-1.log"
    log.write_text("x")
    assert prune(tmp_path, 0).removed == []
    before = (time.time() - 2 * DAY,) * 2
    for path in (*left, *(one / "file" for one in left), log):
        os.utime(path, before)
    assert sorted(prune(tmp_path, 30 * DAY).removed) == sorted(map(str, (*left, log)))
    assert names(tmp_path) == set()


def test_environment__that_was_removed_is_made_again_and_stays_while_it_is_used(tmp_path: Path) -> None:
    first = run(environment([], tmp_path, tmp_path / "cache"))
    os.close(uses._used.pop(first))
    assert prune(tmp_path / "cache", 0).removed == [str(first)]
    again = run(environment([], tmp_path, tmp_path / "cache"))
    assert again == first and (again / "bin" / "python").exists()
    script = "import pathlib, sys; from tasks.clients.packages.uses import prune; prune(pathlib.Path(sys.argv[1]), 0)"
    subprocess.run([sys.executable, "-c", script, tmp_path / "cache"], cwd=ROOT, timeout=60, check=True)
    assert (again / "bin" / "python").exists()
