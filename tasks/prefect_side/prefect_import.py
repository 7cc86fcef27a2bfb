"""The import of Prefect by a command: late, since it takes a second, and without the tracebacks it prints."""

from __future__ import annotations

import sys
from contextlib import redirect_stderr
from typing import Any, TextIO, cast

from tasks.clients.surroundings.startup import importing
from tasks.prefect_side.internals import NO_PLUGINS


class _WithoutPlugins:
    """Standard error without the one message that Prefect prints there when its settings are invalid."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._dropped = False

    def write(self, text: str) -> int:
        self._dropped = text.startswith(NO_PLUGINS) or (self._dropped and text == "\n")
        return len(text) if self._dropped else self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def import_prefect() -> None:
    """Import Prefect without the tracebacks it prints for invalid settings or certificates.

    Raises CallError if its settings are given in a form it cannot use, and any error of the import.
    """
    if "prefect" in sys.modules:
        return
    from tasks.clients.surroundings.prefect_files import check_prefect_settings  # `--help` does not need it

    check_prefect_settings()
    with importing(), redirect_stderr(cast(TextIO, _WithoutPlugins(sys.stderr))):
        import prefect
        import prefect.context  # noqa: F401 - reads the settings
