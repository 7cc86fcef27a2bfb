"""Starting and ending fast: Python looks for garbage neither among what imports make nor when the process ends."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any, TextIO, cast


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


class _WithoutPlugins:
    """Standard error but for the one message that Prefect prints there when its settings are wrong."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._dropped = False

    def write(self, text: str) -> int:
        self._dropped = text.startswith("Failed to initialize plugins") or (self._dropped and text == "\n")
        return len(text) if self._dropped else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def import_prefect() -> None:
    """Import Prefect without the traces that it prints of what is wrong with its settings or certificates.

    Raises CallError if its server's address cannot be one, and whatever the import raises.
    """
    if "prefect" in sys.modules:
        return
    from tasks.clients.surroundings import check_server_address

    check_server_address()
    with importing(), redirect_stderr(cast(TextIO, _WithoutPlugins(sys.stderr))):
        import prefect
        import prefect.context  # noqa: F401 - what reads the settings
