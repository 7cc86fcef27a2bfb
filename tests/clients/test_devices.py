"""Accelerators: which there are, and that no two instances of a machine use the same one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clients.support import ROOT, run, variables
from fakes.processes import DEADLINE_SECONDS, die_with_parent

from tasks.clients.processes.devices import device_kind, devices, lease
from tasks.domain.errors import ModelServerError

HOLDER = """
import asyncio, sys
from pathlib import Path
from tasks.clients.processes.devices import lease

async def main():
    held = await lease(int(sys.argv[2]), sys.argv[3:], Path(sys.argv[1]))
    print(*held.devices, flush=True)
    sys.stdin.read()

asyncio.run(main())
"""
CONTENDER = """
import asyncio, os, sys
from contextlib import closing
from pathlib import Path
from tasks.clients.processes import devices

devices.RETRY_SECONDS = 0.002

async def instance(folder, count):
    for _ in range(20):
        with closing(await devices.lease(count, ["0", "1", "2"], folder)) as held:
            assert len(set(held.devices)) == count
            for name in held.devices:
                os.close(os.open(folder / f"used-{name}", os.O_CREAT | os.O_EXCL))
            await asyncio.sleep(0.001)
            for name in held.devices:
                os.unlink(folder / f"used-{name}")

async def main():
    folder = Path(sys.argv[1])
    await asyncio.gather(instance(folder, 1), instance(folder, 2))

asyncio.run(main())
"""

Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Starter]:
    """Starts Python with some code; whatever still runs at the end is killed."""
    started: list[subprocess.Popen[str]] = []

    def starter(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        started.append(process)
        return process

    yield starter
    for process in started:
        process.kill()
        process.communicate()


def make_dev(folder: Path, *names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / name).touch()
    return folder


def test_devices__are_those_that_the_administrator_lists(tmp_path: Path) -> None:
    dev = make_dev(tmp_path / "dev", "nvidia0", "nvidia1")
    with variables(CUDA_VISIBLE_DEVICES="1"):
        assert devices(["0", "GPU-1", "0"], dev) == ["0", "GPU-1"]
        assert devices([], dev) == []


@pytest.mark.parametrize(
    ("inherited", "found"),
    [
        ("1,3", ["1", "3"]),
        (" 0 , GPU-8f ", ["0", "GPU-8f"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,-1,0", ["2"]),
    ],
)
def test_devices__are_else_those_that_this_process_was_given(tmp_path: Path, inherited: str, found: list[str]) -> None:
    dev = make_dev(tmp_path / "dev", "nvidia0", "nvidia1", "nvidia2", "nvidia3")
    with variables(CUDA_VISIBLE_DEVICES=inherited):
        assert devices(None, dev) == found


@pytest.mark.parametrize(
    ("names", "kind", "found"),
    [
        ((), "gpu", []),
        (("nvidia0", "nvidia10", "nvidiactl", "nvidia-uvm", "davinci_manager"), "gpu", ["0", "1"]),
        (("davinci0", "davinci1", "davinci2", "davinci_manager"), "npu", ["0", "1", "2"]),
        (("nvidia0", "davinci0", "davinci1"), "gpu", ["0"]),
        (("nvidia3",), "gpu", ["0"]),
    ],
)
def test_devices__are_else_as_many_as_there_are_device_files(
    tmp_path: Path, names: tuple[str, ...], kind: str, found: list[str]
) -> None:
    dev = make_dev(tmp_path / "dev", *names)
    with variables(CUDA_VISIBLE_DEVICES=None, ASCEND_RT_VISIBLE_DEVICES=None):
        assert device_kind(dev) == kind
        assert devices(None, dev) == found
        assert devices(None, tmp_path / "none") == []


def test_devices__of_a_machine_with_npus_are_named_by_its_own_variable(tmp_path: Path) -> None:
    dev = make_dev(tmp_path / "dev", "davinci0", "davinci1")
    with variables(CUDA_VISIBLE_DEVICES="", ASCEND_RT_VISIBLE_DEVICES="1"):
        assert devices(None, dev) == ["1"]


def test_lease__of_none_needs_no_machine_with_accelerators(tmp_path: Path) -> None:
    held = run(lease(0, [], tmp_path / "leases"))
    assert held.devices == ()
    held.close()
    assert not (tmp_path / "leases").exists()


@pytest.mark.parametrize(
    ("count", "among", "said"),
    [
        (2, ["0"], "Flavor gpu-1 needs 2 accelerators, this machine has 1 (0); contact the administrator"),
        (3, ["0", "GPU-1"], "Flavor gpu-1 needs 3 accelerators, this machine has 2 (0, GPU-1); contact the"),
        (1, [], "Flavor gpu-1 needs 1 accelerator, this machine has none; contact the administrator"),
    ],
)
def test_lease__of_more_than_the_machine_has_is_refused_at_once(
    tmp_path: Path, count: int, among: list[str], said: str
) -> None:
    with pytest.raises(ModelServerError) as refused:
        run(lease(count, among, tmp_path, "gpu-1"))
    assert str(refused.value).startswith(said)


def test_lease__says_when_the_folder_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelServerError, match=r"cannot be shared out: .*file"):
        run(lease(1, ["0"], tmp_path / "file"))


def test_lease__takes_the_free_ones_also_within_one_process(tmp_path: Path) -> None:
    async def work() -> None:
        one, other = await lease(1, ["0", "1", "MIG-GPU-1/2/0"], tmp_path), await lease(1, ["0", "1"], tmp_path)
        assert (one.devices, other.devices) == (("0",), ("1",))
        third = await lease(1, ["0", "1", "MIG-GPU-1/2/0"], tmp_path)
        assert third.devices == ("MIG-GPU-1/2/0",)
        one.close()
        one.close()
        again = await lease(1, ["0", "1"], tmp_path)
        assert again.devices == ("0",)
        for held in (other, third, again):
            held.close()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


def test_lease__never_gives_one_device_to_two_processes(tmp_path: Path, start: Starter) -> None:
    contenders = [start(CONTENDER, tmp_path) for _ in range(3)]
    assert [process.wait(DEADLINE_SECONDS) for process in contenders] == [0, 0, 0]


def test_lease__waits_without_holding_any_and_gets_those_of_a_killed_process(tmp_path: Path, start: Starter) -> None:
    holder = start(HOLDER, tmp_path, 1, "0", "1")
    assert holder.stdout and holder.stdout.readline() == "0\n"

    async def work() -> None:
        waiting = asyncio.ensure_future(lease(2, ["0", "1"], tmp_path))
        await asyncio.sleep(0)  # it has tried, and this goes on
        free = await lease(1, ["0", "1"], tmp_path)
        assert free.devices == ("1",)
        assert not waiting.done()
        free.close()
        holder.kill()
        held = await waiting
        assert held.devices == ("0", "1")
        held.close()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


def test_lease__given_up_while_waiting_holds_nothing(tmp_path: Path) -> None:
    async def work() -> None:
        first = await lease(1, ["0", "1"], tmp_path)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(lease(2, ["0", "1"], tmp_path), 0.05)
        other = await lease(1, ["0", "1"], tmp_path)
        assert other.devices == ("1",)
        first.close()
        other.close()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))


def test_lease__does_not_pass_to_programs_that_the_holder_starts(tmp_path: Path) -> None:
    async def work() -> None:
        held = await lease(1, ["0"], tmp_path)
        program = await asyncio.create_subprocess_exec("sleep", "600")
        held.close()
        again = await lease(1, ["0"], tmp_path)
        assert program.returncode is None
        program.kill()
        await program.wait()
        again.close()

    run(asyncio.wait_for(work(), DEADLINE_SECONDS))
