"""What surrounds each command: streams, signals, and every failure reported in one line, without a traceback.

With ``--verbose`` the traceback precedes that line, with secrets masked.
"""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, MutableSequence
from contextlib import contextmanager, suppress

from deployments.terminal.output import say
from tasks.domain.errors import CallError, Problem, RunError, SpecificationError, ThresherError
from tasks.domain.masking import masked
from tasks.domain.plain_text import plain_block
from tasks.domain.unexpected import VERBOSE, in_one_line, is_unexpected

FAILED, REFUSED = 1, 2
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def guarded(work: Callable[[], int], *, verbose: bool) -> int:
    """The exit code of a command; an exception is reported in one line on standard error."""
    try:
        return work()
    except KeyboardInterrupt as stopped:
        _say(str(stopped) or "Stopped before the end.")
        return FAILED
    except BrokenPipeError:  # the reader of the output has closed it, as `head` does
        return FAILED
    except BaseException as error:
        if not isinstance(error, ThresherError) and not is_unexpected(error):
            raise
        if verbose:
            _show_trace(error)
        ours = error if isinstance(error, ThresherError) else _explained(error)
        _say(str(ours))
        return REFUSED if isinstance(ours, SpecificationError) else FAILED


def take_verbose(arguments: MutableSequence[str]) -> bool:
    """Whether ``--verbose`` is among the arguments. Remove it, except for ``run``, which has its own such option."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if VERBOSE not in arguments[:end]:
        return False
    if arguments[0] != "run":
        arguments.remove(VERBOSE)
    return True


def quiet_libraries() -> None:
    """Suppress what libraries print themselves: warnings, reports of unawaited tasks, tracebacks."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    if logging.lastResort is not None:
        logging.lastResort.setLevel(logging.CRITICAL + 1)
    for name in ("asyncio", "docket", "prefect.plugins", "prefect.server", "aiobotocore", "fsspec", "s3fs"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    os.environ["RUST_BACKTRACE"] = "0"
    make = logging.getLogRecordFactory()

    def without_trace(*arguments: object, **named: object) -> logging.LogRecord:
        record = make(*arguments, **named)
        record.exc_info = record.stack_info = None
        return record

    logging.setLogRecordFactory(without_trace)
    sys.unraisablehook = lambda _: None
    threading.excepthook = _thread_failed


def usable_streams() -> None:
    """Make the standard streams usable, whatever the caller passed on.

    The next file opened would get a closed descriptor below 3, and output for the terminal would be written into it.
    Except on a terminal, text is written as UTF-8, like paths, whatever the locale.
    """
    for number, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - open until the process ends
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            if isinstance(stream, io.TextIOWrapper):
                encoding = stream.encoding if stream.isatty() else "utf-8"
                stream.reconfigure(errors="backslashreplace", encoding=encoding)


def usable_temporary_folder() -> None:
    """Replace an unusable TMPDIR by Python's fallback, for the processes started from here."""
    folder = os.environ.get("TMPDIR", "")
    if folder:
        with suppress(OSError):  # no folder is usable: the first use of one reports that
            os.environ["TMPDIR"] = tempfile.gettempdir()


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


def stop_on_signals() -> None:
    """Make the first Ctrl-C or SIGTERM raise KeyboardInterrupt in the main thread; later ones are ignored.

    A signal that is already ignored stays ignored, such as Ctrl-C for a background command of a script.
    """
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(*_: object) -> None:
    for number in _SIGNALS:  # a graceful shutdown takes a moment
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _explained(error: BaseException) -> ThresherError:
    try:
        from tasks.clients.surroundings.surroundings import explained  # imported only after a failure

        return explained(error)
    except BaseException:  # even that import can fail: out of memory or file descriptors
        detail, of_the_environment = in_one_line(error)
        return CallError([Problem("", None, detail)]) if of_the_environment else RunError(detail)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and is_unexpected(failed.exc_value):
        _say(f"warning: {_explained(failed.exc_value)}")


def _show_trace(error: BaseException) -> None:
    with suppress(OSError):
        sys.stderr.write(masked("".join(traceback.format_exception(error))))


def _say(text: str) -> None:
    try:
        say(text)
    except (ImportError, MemoryError):
        with suppress(OSError):
            os.write(sys.stderr.fileno(), f"{plain_block(masked(text))}\n".encode(errors="backslashreplace"))
    except OSError:  # standard error is closed, or its disk is full: only the exit code is left
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - Python flushes it once more at exit
