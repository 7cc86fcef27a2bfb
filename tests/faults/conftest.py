"""Scenarios for the fault tests: each in a folder of its own, with processes of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.s3_proxy import S3Proxy
from fakes.s3_server import S3Server
from faults.scenario import FlowRun, S3Scenario, Scenario


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Test each fault with one and two instances: with those of its mark (default 1) always, else in ``make soak``."""
    if "instances" not in metafunc.fixturenames or any(
        "instances" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize")
    ):
        return
    mark = metafunc.definition.get_closest_marker("instances")
    usual = mark.args[0] if mark else 1
    tried = [
        pytest.param(number, id=f"instances-{number}", marks=[] if number == usual else [pytest.mark.soak])
        for number in (1, 2)
    ]
    metafunc.parametrize("instances", tried, indirect=True)


@pytest.fixture
def instances(request: pytest.FixtureRequest) -> int:
    """The number of instances of the service: more than one is distributed mode."""
    number: int = request.param
    return number


@pytest.fixture
def scenario(tmp_path: Path, prefect_server: str, processes_of: Any, package: Any, instances: int) -> Scenario:
    """A service on local disks."""
    return Scenario(tmp_path, prefect_server, processes_of, package, instances)


@pytest.fixture
def scenario_of_two(tmp_path: Path, prefect_server: str, processes_of: Any, package: Any) -> Scenario:
    """A service on local disks with two instances."""
    return Scenario(tmp_path, prefect_server, processes_of, package, 2)


@pytest.fixture
def s3(tmp_path: Path) -> Iterator[S3Server]:
    """An S3 server of this test's own, with an empty bucket `data`."""
    with S3Server(tmp_path / "s3") as server:
        server.make_bucket("data")
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[S3Proxy]:
    """A proxy in front of the S3 server."""
    with S3Proxy(s3.endpoint) as one:
        yield one


@pytest.fixture
def s3_scenario(
    tmp_path: Path, prefect_server: str, processes_of: Any, package: Any, s3: S3Server, request: pytest.FixtureRequest
) -> S3Scenario:
    """A service in a bucket, accessed through the proxy if the test uses one."""
    endpoint = request.getfixturevalue("proxy").endpoint if "proxy" in request.fixturenames else ""
    return S3Scenario(tmp_path, prefect_server, processes_of, package).use(s3, endpoint)


@pytest.fixture
def begin() -> Iterator[Callable[..., FlowRun]]:
    """Starts the first try of a scenario's run. Runs still active at the end of the test are ended."""
    begun: list[FlowRun] = []

    def start(scenario: Scenario, task_id: str = "", **environment: str) -> FlowRun:
        begun.append(FlowRun(scenario, task_id))
        return begun[-1] if task_id else begun[-1].start(**environment)

    yield start
    for run in begun:
        run.close()
