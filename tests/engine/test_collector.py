"""The cyclic garbage collector while shards are processed."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from tasks.engine.collector import THRESHOLDS, rare_collections


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_collections__are_rare_until_the_last_block_has_ended() -> None:
    gc.set_threshold(700, 10, 10)
    with rare_collections():
        with rare_collections():
            assert gc.get_threshold() == THRESHOLDS
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_threshold() == (700, 10, 10)
    with pytest.raises(ValueError, match="wrong"), rare_collections():
        raise ValueError("wrong")
    assert gc.get_threshold() == (700, 10, 10)


@pytest.mark.parametrize("own", [(0, 10, 10), (1_000_000, 100, 100)])
def test_collections__that_are_rarer_or_switched_off_already_stay_so(own: tuple[int, int, int]) -> None:
    gc.set_threshold(*own)
    with rare_collections():
        assert gc.get_threshold() == own
    assert gc.get_threshold() == own
