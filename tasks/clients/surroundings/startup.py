"""Fast start: no garbage collection during imports."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Disable garbage collection while modules are imported: they make hundreds of thousands of objects that all stay.

    Later collections skip these objects, and cover only those that the command itself makes.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
