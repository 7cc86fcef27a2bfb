"""Starting and ending fast: Python looks for garbage neither among what imports make nor when the process ends."""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr


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


def import_prefect() -> None:
    """Import Prefect without the traces that it prints of what is wrong with its settings or certificates.

    Raises CallError if its server's address cannot be one, and whatever the import raises.
    """
    if "prefect" in sys.modules:
        return
    from tasks.clients.surroundings import check_server_address

    check_server_address()
    with importing(), redirect_stderr(io.StringIO()):
        import prefect
        import prefect.context  # noqa: F401 - what reads the settings
