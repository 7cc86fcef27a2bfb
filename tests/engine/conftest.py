"""A real S3 server and a fake model server a worker, and a storage of each kind a test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.places import KINDS, Place, make_place
from fakes.model_server import FakeModelServer
from fakes.s3_server import S3Server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3") / "objects") as server:
        yield server


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty folder on each kind of storage."""
    server = None if request.param == "local" else request.getfixturevalue("s3_server")
    return make_place(request.param, tmp_path, server, f"engine-{next(_numbers)}")


@pytest.fixture
def fake(_one_model: FakeModelServer) -> FakeModelServer:
    """This worker's fake model server; its counts are the test's."""
    _one_model.forget()
    return _one_model
