"""What a process holds is closed to the other processes of its user: process_privacy.py."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from clients.support import ROOT

UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")
"""Nothing is closed to root with all that it may do."""

HOLDER = """
import os, sys, time
from tasks.clients.processes.process_privacy import hide_memory
if sys.argv[1] == "hidden":
    hide_memory()
if len(sys.argv) > 2 and os.fork():
    os.wait()
print(os.getpid(), flush=True)
sys.stdin.read()
"""
READER = """
import subprocess, sys
holder = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
pid = int(holder.stdout.readline())
for name in ("environ", "mem", "maps", "fd/0"):
    try:
        print(name, bool(open(f"/proc/{pid}/{name}", "rb").read(0) is not None))
    except PermissionError:
        print(name, "closed")
print("command line", "hidden" in open(f"/proc/{pid}/cmdline").read() or "open" in open(f"/proc/{pid}/cmdline").read())
holder.communicate("")
"""


def read_of(*how: str) -> dict[str, str]:
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("as root, without setpriv, nothing is closed")
    bare = UNPRIVILEGED if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*bare, sys.executable, "-c", READER, "-c", HOLDER, *how], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())


def test_hide_memory__closes_environment_memory_and_open_files() -> None:
    assert read_of("open") == {
        "environ": "True", "mem": "True", "maps": "True", "fd/0": "True", "command line": "True"
    }  # fmt: skip
    assert read_of("hidden") == {
        "environ": "closed", "mem": "closed", "maps": "closed", "fd/0": "closed", "command line": "True"
    }  # fmt: skip


def test_hide_memory__holds_for_a_forked_process() -> None:
    assert read_of("hidden", "forked")["environ"] == "closed"
