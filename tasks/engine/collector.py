"""Rarer runs of Python's cyclic garbage collector, while many small objects without cycles come and go."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (5_000, 20, 50)
"""Thresholds of :func:`gc.set_threshold`: new objects per young collection, collections per older one."""

_busy = 0
_before = gc.get_threshold()


@contextmanager
def rare_collections() -> Iterator[None]:
    """Raise the collector's thresholds in the whole process while the block runs.

    Rows, items and outcomes are freed by reference counting. Scanning them for cycles, with everything that Prefect
    has loaded, takes two thirds of the time of a CSV item (tests/benchmarks). A disabled collector stays disabled.
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
