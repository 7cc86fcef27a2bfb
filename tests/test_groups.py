"""Tests of one group run in one process, so that what they share is started once."""

from __future__ import annotations

import os

import pytest


@pytest.mark.xdist_group("one-process")
@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="tests run in one process anyway")
def test_group__is_seen_by_whoever_hands_out_the_tests(request: pytest.FixtureRequest) -> None:
    assert request.node.nodeid.endswith("@one-process")
