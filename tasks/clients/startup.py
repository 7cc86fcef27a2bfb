"""Starting and ending fast: Python looks for garbage neither among what imports make nor when the process ends."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """While modules are imported, which makes hundreds of thousands of objects that all stay.

    They are not looked at again, either: later searches for garbage are about what the command itself makes.
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


def end_without_searching() -> None:
    """Before the process ends: its memory is given back as a whole. A search through Prefect takes 0.3 s."""
    gc.freeze()
