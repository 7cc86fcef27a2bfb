"""A process that is already running, adopted by a warden."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from clients.process_tree import TREE
from clients.support import ROOT, alive, pids, wait_for

ADOPTER = """
import subprocess, sys, time
from tasks.clients.processes.lifeline import adopt

child = subprocess.Popen([sys.executable, "-I", "-S", "-c", *sys.argv[2:]], stdout=open(sys.argv[1], "ab"))
warden = adopt(child.pid)
print("warden", warden.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    "kinds",
    [("stay",), pytest.param(("stubborn-command", "stay"), marks=pytest.mark.slow)],
)
def test_adopt__ends_them_when_the_adopter_is_killed(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    log = tmp_path / "log"
    adopter = subprocess.Popen(
        [sys.executable, "-c", ADOPTER, str(log), TREE, *kinds],
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    with adopter:
        assert adopter.stdout
        warden = int(adopter.stdout.readline().split()[1])
        wait_for(lambda: "command" in pids(log))
        found = pids(log)
        assert all(alive(pid) for pid in found.values())
        adopter.kill()
    try:
        wait_for(lambda: not any(alive(pid) for pid in [warden, *found.values()]))
    finally:
        for pid in found.values():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
