"""Random faults at random moments, drawn from a seed: whatever dies, the resumed run has every item.

``make chaos`` runs many rounds. The seed of each round is printed: CHAOS_SEED=<seed> repeats it, as far as the timing
of the machine allows.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.prefect_servers import PrefectServer, sqlite_server
from faults.corpus import Corpus
from faults.scenario import FlowRun, Scenario, assert_nothing_lost

SEED = os.environ.get("CHAOS_SEED") or "1"
ROUNDS = int(os.environ.get("CHAOS_ROUNDS") or 2)
USUAL_ROUNDS = 1
"""This many rounds are in make test, the others in make soak."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.prefect,
    pytest.mark.xdist_group("faults-chaos"),
    pytest.mark.instances(2),
    pytest.mark.timeout(900),
]
MOST_TRIES = 8
"""A run that is disturbed at most three times has ended by then."""
MOST_WAIT_SECONDS = 6.0
SERVER_GONE_SECONDS = 3.0
MOST_REFUSING_SECONDS = 8.0
REFUSING = "refusing"
"""While this file exists, every model server refuses every request."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, _nothing_left_behind: None) -> Iterator[PrefectServer]:
    """A Prefect server for these tests only, which they may kill."""
    with sqlite_server(tmp_path_factory.mktemp("chaos-server")) as one:
        yield one


class Chaos:
    """One round: its victims and moments are drawn from its seed."""

    def __init__(self, seed: str, scenario: Scenario, server: PrefectServer, run: FlowRun) -> None:
        self._random = random.Random(seed)
        self._scenario = scenario
        self._server = server
        self._run = run
        self.left = self._random.randint(1, 3)
        self._victims: dict[str, Callable[[], None]] = {
            "model server": lambda: self._kill(self._scenario.model_servers),
            "warden": lambda: self._kill(self._scenario.pids("warden.py")),
            "flow process": lambda: self._signal(signal.SIGKILL),
            "process group": lambda: self._signal(signal.SIGKILL, group=True),
            "flow process, SIGTERM": lambda: self._signal(signal.SIGTERM),
            "flow process and model server": self._both,
            "Prefect server": self._restart_server,
            "model server refuses": self._refuse,
        }

    def strike(self) -> None:
        """Wait for the next moment, unless the run ends before it, and kill a victim."""
        self.left -= 1
        victim = self._random.choice(sorted(self._victims))
        if self._random.random() < 0.5:
            results = self._random.randint(0, 480)
            self._wait(lambda: self._scenario.results() >= results)
            when = f"{results} results"
        else:
            seconds = self._random.uniform(0, MOST_WAIT_SECONDS)
            until = time.monotonic() + seconds
            self._wait(lambda: time.monotonic() >= until)
            when = f"{seconds:.2f} s"
        print(f"  after {when}: {victim}, {self._scenario.results()} results are there")
        self._victims[victim]()

    def _wait(self, condition: Callable[[], bool]) -> None:
        process = self._run.process
        assert process is not None
        self._run.until(lambda: condition() or process.poll() is not None, dead=True)

    @staticmethod
    def _kill(pids: list[int]) -> None:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def _signal(self, number: int, *, group: bool = False) -> None:
        if self._run.process is not None and self._run.process.poll() is None:
            self._run.signal(number, group=group)

    def _both(self) -> None:
        self._kill(self._scenario.model_servers)
        self._signal(signal.SIGKILL)

    def _refuse(self) -> None:
        refusing = self._scenario.folder / REFUSING
        refusing.write_text(self._random.choice(("503", "429", "502", "504", "503 1")))
        time.sleep(self._random.uniform(0, MOST_REFUSING_SECONDS))  # how long it refuses is also drawn
        refusing.unlink()

    def _restart_server(self) -> None:
        web = self._server.web
        assert web is not None and web.process is not None
        web.process.kill()
        web.process.wait()
        time.sleep(self._random.uniform(0, SERVER_GONE_SECONDS))  # how long it is gone is also drawn
        web.start()


@pytest.mark.parametrize(
    "number", [pytest.param(one, marks=[] if one < USUAL_ROUNDS else [pytest.mark.soak]) for one in range(ROUNDS)]
)
def test_chaos__loses_nothing(
    number: int, tmp_path: Path, server: PrefectServer, processes_of: Any, package: Any,
    begin: Callable[..., FlowRun], instances: int,
) -> None:  # fmt: skip
    seed = SEED if ROUNDS == 1 else f"{SEED}-{number}"
    print(f"\nCHAOS_SEED={seed} CHAOS_ROUNDS=1 repeats this round")
    scenario = Scenario(tmp_path, server.api, processes_of, package, instances)
    refusing = str(scenario.folder / REFUSING)
    scenario.prepare(Corpus(), "--service-time", "30", "--parallelism", "8", "--refuse-while", refusing)
    run = begin(scenario)
    chaos = Chaos(seed, scenario, server, run)
    for _ in range(MOST_TRIES):
        assert run.process is not None
        while chaos.left and run.process.poll() is None:
            chaos.strike()
        run.wait()
        if run.state()["type"] == "COMPLETED":
            break
        scenario.assert_nothing_left(folders=False)
        print(f"  the process has ended with {run.process.returncode}, state {run.state()['type']}: resumed")
        run.resume()
    # A process that is killed while its model server is being restarted has no warden to remove its folder.
    assert_nothing_lost(run, folders=False)
