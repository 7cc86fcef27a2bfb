"""Whether a process that was named somewhere is still there."""

from __future__ import annotations

import subprocess
import sys
import time

from fakes.processes import die_with_parent

from tasks.clients.processes.process_identity import is_there, own_process

CHILD = "from tasks.clients.processes.process_identity import own_process\nprint(own_process(), flush=True)\ninput()"


def test_process__is_there_until_it_has_ended_and_no_longer() -> None:
    assert is_there(own_process()) is True
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        preexec_fn=die_with_parent,
    ) as child:  # fmt: skip
        assert child.stdout is not None
        said = child.stdout.readline().strip()
        assert is_there(said) is True
        child.kill()
        child.stdout.read()  # its end
        assert child.wait() == -9 and is_there(said) is False


def test_process__of_another_beginning_or_place_is_another() -> None:
    place, pid, began = own_process().rsplit("/", 2)
    assert is_there(f"{place}/{pid}/{int(began) + 1}") is False
    for unknown in ("", "nonsense", f"elsewhere:{place}/{pid}/{began}", f"{place}/x/{began}"):
        assert is_there(unknown) is None


def test_process__tells_when_it_began() -> None:
    before = time.time()
    begun = subprocess.run(
        [sys.executable, "-c", "from tasks.clients.processes.process_identity import own_start\nprint(own_start())"],
        text=True, capture_output=True, check=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    assert before - 0.1 <= float(begun.stdout) <= time.time()  # the kernel counts in hundredths of a second
