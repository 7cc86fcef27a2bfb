"""Standard error for a command's own messages: output of Rust and C libraries is discarded."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def own_standard_error() -> Iterator[None]:
    """Inside the block, discard output to file descriptor 2, which such libraries use; ``sys.stderr`` still works.

    A panic in Rust prints two lines there before it reaches Python as an exception, which is reported in one.
    """
    stream = sys.stderr
    try:
        if not isinstance(stream, io.TextIOWrapper) or stream.fileno() != 2:
            raise OSError
        stream.flush()
        shown = os.dup(2)
        nowhere = os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):  # standard error is closed or replaced
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
