"""A project whose own packages have the names of Thresher's: commands, workers and their runs do not import them."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import thresher
import yaml
from fakes import prefect_servers, processes

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.xdist_group("lifecycle-sqlite")]

PACKAGES = ("deployments", "flows", "infra", "tasks", "thresher")
POOL = "unattended"


@pytest.fixture
def foreign(tmp_path: Path, write_files: Callable[..., Path]) -> Path:
    """A folder with packages that cannot be imported."""
    raising = "raise AssertionError(f'imported from the project: {__file__}')\n"
    return write_files(tmp_path / "project", {f"{name}/__init__.py": raising for name in PACKAGES})


def test_run__in_a_folder_with_packages_of_its_own_uses_thresher_s(
    request: pytest.FixtureRequest, foreign: Path, fields: Callable[..., dict[str, Any]]
) -> None:
    """Its embedded server and both instances start there, too."""
    (foreign / "spec.yaml").write_text(yaml.safe_dump(fields(instances=2)))
    done = request.getfixturevalue("thresher")("run", "spec.yaml", cwd=foreign)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 items SUCCESSFUL" in done.stderr


@contextmanager
def worker_in(folder: Path, stack: Any) -> Iterator[Path]:
    """A worker of the pool whose working directory, and so its first place for imports, is the folder; its log."""
    log = folder.with_name("worker.log")
    environment = prefect_servers.environment_of(stack.server) | dict(stack.environment) | {
        "PYTHONPATH": processes.PYTHON_START,  # without the project, unlike other workers of tests
        "PREFECT_WORKER_QUERY_SECONDS": "1",
    }  # fmt: skip
    process = processes.start(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL], log, environment, folder
    )
    try:
        yield log
    finally:
        processes.stop(process, 45)


def test_worker__in_a_folder_with_packages_of_its_own_runs_services(
    sqlite_stack: Any, foreign: Path, fields: Callable[..., dict[str, Any]], name: str
) -> None:
    """The service's life is led from Python."""
    with worker_in(foreign, sqlite_stack) as log:
        run = thresher.wait(thresher.deploy(fields({"a.bin": b"a"}, resource_pool=POOL)))
    assert isinstance(run, thresher.Run)
    assert (run.status, run.done) == ("Completed", 1), (run, log.read_text()[-3000:])
    (item,) = thresher.results(run)
    assert item.source.endswith("/a.bin") and item.answer()
    begun = thresher.start(name, {"output_path": str(foreign / "out")})
    with pytest.raises(thresher.SpecificationError, match=f"RUN = '{begun.id}': has published no output manifest"):
        thresher.results(begun)
    assert thresher.stop(name, wait=True).status == thresher.show(name).status == "Stopped"
    assert thresher.wait(begun.id) == thresher.show(name).last_run
    for unknown in ("digits", str(uuid.uuid4())):
        with pytest.raises(thresher.ThresherError):
            thresher.wait(unknown)
