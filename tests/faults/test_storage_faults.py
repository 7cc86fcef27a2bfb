"""A storage that is unavailable for a while, refuses requests, cuts connections, or is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fakes import processes
from fakes.s3_proxy import Rule, S3Proxy
from fakes.s3_server import S3Server
from faults.corpus import Corpus
from faults.scenario import FlowRun, S3Scenario, Scenario, assert_nothing_lost

pytestmark = [pytest.mark.slow, pytest.mark.prefect]

Begin = Callable[..., FlowRun]
OUTAGE_SECONDS = 10.0 if processes.FULL_LENGTH else 4.0
FULL = r"Upload of the result file failed\. No space left on device\."


def test_run__outlasts_a_storage_that_is_gone_for_a_while(s3_scenario: S3Scenario, s3: S3Server, begin: Begin) -> None:
    run = begin(s3_scenario.prepare())
    run.until(s3_scenario.is_in_the_middle)
    s3.stop()
    s3_scenario.gate.touch()
    time.sleep(OUTAGE_SECONDS)  # the length of the outage is under test
    s3.start()
    assert_nothing_lost(run.wait())


def test_run__outlasts_a_storage_that_refuses_every_third_request(
    s3_scenario: S3Scenario, proxy: S3Proxy, begin: Begin
) -> None:
    refused = proxy.add(Rule("status", every=3))
    s3_scenario.prepare().gate.touch()
    assert_nothing_lost(begin(s3_scenario).wait())
    assert refused.done > 300


def test_run__outlasts_connections_that_are_cut_while_it_reads_and_writes(
    s3_scenario: S3Scenario, proxy: S3Proxy, begin: Begin
) -> None:
    reads = proxy.add(Rule("cut read", method="GET", target=r"/data/in/.*\.bin", every=7))
    writes = proxy.add(Rule("cut write", method="PUT", target=r"_result\.txt", every=7))
    unanswered = proxy.add(Rule("refuse", every=11))
    s3_scenario.prepare().gate.touch()
    assert_nothing_lost(begin(s3_scenario).wait())
    assert min(reads.done, writes.done, unanswered.done) > 50


@pytest.fixture
def disk(scenario: Scenario) -> Iterator[Path]:
    """A disk of 8 MiB for the scenario's results."""
    scenario.output.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(scenario.output)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    try:
        yield scenario.output
    finally:
        subprocess.run(["umount", "--lazy", str(scenario.output)], check=True)


def fill(path: Path) -> None:
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with contextlib.suppress(OSError):
                while True:
                    file.write(b"x" * size)
    assert os.statvfs(path.parent).f_bfree == 0


def test_disk__too_small_for_some_results_costs_those_items_only(scenario: Scenario, begin: Begin, disk: Path) -> None:
    large = dict.fromkeys((100, 101, 102), ("FAIL:20mb", FULL))
    scenario.environment["THRESHER_SHARD_ITEMS"] = "1000"  # so that no report is written while the disk is full
    run = begin(scenario.prepare(Corpus(scenario.held, large)))
    run.until(lambda: scenario.is_in_the_middle() and scenario.seen() >= len(large) + len(scenario.held))
    processes.poll(lambda: os.statvfs(disk).f_bfree * 4096 > 4 << 20, "room")
    scenario.gate.touch()
    summary = assert_nothing_lost(run.wait(), may_fail=FULL)  # files written at the same moment also had no room
    assert summary["items"]["successful"] > 400


def test_disk__full_for_good_ends_the_run_and_is_resumed_when_there_is_room(
    scenario: Scenario, begin: Begin, disk: Path
) -> None:
    run = begin(scenario.prepare())
    run.until(scenario.is_in_the_middle)
    fill(disk / ".filler")
    scenario.gate.touch()
    run.wait()
    state = run.state()
    assert state["type"] == "FAILED", run.told()
    assert "No space left on device" in state["message"]
    scenario.assert_nothing_left()
    assert not list(disk.glob("*.manifest"))
    (disk / ".filler").unlink()
    assert_nothing_lost(run.resume().wait())
