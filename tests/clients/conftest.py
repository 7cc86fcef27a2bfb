"""One real S3 server a worker, and a storage of each kind a test."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.places import KINDS, Place, make_place
from fakes.s3_server import S3Server

from tasks.clients.processes import lifeline

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "objects") as server:
        yield server


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    """A bucket of the test's own."""
    name = f"bucket-{next(_numbers)}"
    s3_server.make_bucket(name)
    return name


@pytest.fixture
def patient_warden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that ignore SIGTERM are left alone for longer than a test may take, by the warden and its owner."""
    text = lifeline.WARDEN.read_text()
    patient, found = re.subn(r"^GRACE_SECONDS = .*$", "GRACE_SECONDS = 3600.0", text, flags=re.MULTILINE)
    assert found == 1
    warden = tmp_path / "patient" / "warden.py"
    warden.parent.mkdir()
    warden.write_text(patient)
    monkeypatch.setattr(lifeline, "WARDEN", warden)
    monkeypatch.setattr(lifeline, "STOP_SECONDS", 3600.0)


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty folder on each kind of storage."""
    server = None if request.param == "local" else request.getfixturevalue("s3_server")
    return make_place(request.param, tmp_path, server, f"place-{next(_numbers)}")
