"""Standard error for what a command has to say: what libraries of Rust and C print by themselves goes elsewhere."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def own_standard_error() -> Iterator[None]:
    """While it lasts, descriptor 2, which such libraries write to, leads nowhere; Python's standard error stays.

    A panic in Rust prints two lines there before Python gets it as an exception, which is explained in one.
    """
    stream = sys.stderr
    try:
        if not isinstance(stream, io.TextIOWrapper) or stream.fileno() != 2:
            raise OSError
        stream.flush()
        shown = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):  # it is not there, or replaced
        yield
        return
    sys.stderr = io.TextIOWrapper(
        io.FileIO(shown, "w", closefd=False),
        encoding=stream.encoding, errors=stream.errors, line_buffering=True, write_through=True,
    )  # fmt: skip
    os.dup2(nowhere, 2)
    os.close(nowhere)
    try:
        yield
    finally:
        with suppress(OSError, ValueError):
            sys.stderr.flush()
        os.dup2(shown, 2)
        sys.stderr = stream
        os.close(shown)
