"""Python's cyclic garbage collector, made rarer while many small objects come and go that are in no cycle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (5_000, 20, 50)
"""New objects before the youngest are looked through, and how often that is before older ones are."""

_busy = 0
_before = gc.get_threshold()


@contextmanager
def rare_collections() -> Iterator[None]:
    """While the block lasts, wherever in the process, the collector starts rarely.

    Rows, items and outcomes are freed by reference counting. Looking through them for cycles, with all that Prefect
    has loaded, takes two thirds of the time of a CSV item (tests/benchmarks). Where it is switched off it stays so.
    """
    global _busy, _before
    if not _busy:
        _before = gc.get_threshold()
        if _before[0]:
            gc.set_threshold(*map(max, _before, THRESHOLDS))
    _busy += 1
    try:
        yield
    finally:
        _busy -= 1
        if not _busy:
            gc.set_threshold(*_before)
