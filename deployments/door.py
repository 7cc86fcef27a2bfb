"""The last door of the command line: whatever goes wrong leaves as one line, without a library's trace.

With ``--verbose`` the trace is shown before that line, masked.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, MutableSequence
from contextlib import suppress

from deployments.talk import error_console, say_on
from tasks.domain.errors import CallError, Problem, RunError, SpecificationError, ThresherError
from tasks.domain.masking import masked
from tasks.domain.plain_text import plain_block
from tasks.domain.unexpected import VERBOSE, in_one_line, is_unexpected

FAILED, REFUSED = 1, 2


def guarded(work: Callable[[], int], *, verbose: bool) -> int:
    """The exit code of a command; what it raises is told in one line on standard error."""
    try:
        return work()
    except KeyboardInterrupt as stopped:
        _say(str(stopped) or "Stopped before the end.")
        return FAILED
    except BrokenPipeError:  # the reader of the output has gone, as `head` does
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
    """Whether ``--verbose`` is among the arguments; it is taken out, but for ``run``, which has it as its own."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if VERBOSE not in arguments[:end]:
        return False
    if arguments[0] != "run":
        arguments.remove(VERBOSE)
    return True


def quiet_libraries() -> None:
    """Keep to themselves what libraries say of their own accord: warnings, tasks that were not waited for, traces."""
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
    """Standard streams as a command needs them, however it was called.

    A descriptor below 3 that is closed would be taken by the next file that is opened, and what is meant for the
    terminal written into it. Texts leave as UTF-8, which paths are, whatever the locale says.
    """
    for number, mode, name in ((0, "r", "stdin"), (1, "w", "stdout"), (2, "w", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115 - until the process ends
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError, OSError):
            if isinstance(stream, io.TextIOWrapper):
                encoding = stream.encoding if stream.isatty() else "utf-8"
                stream.reconfigure(errors="backslashreplace", encoding=encoding)


def usable_temporary_folder() -> None:
    """If TMPDIR cannot be used, processes started from here use what Python falls back to."""
    folder = os.environ.get("TMPDIR", "")
    if folder:
        with suppress(OSError):  # there is no other one, either: who needs it says so
            os.environ["TMPDIR"] = tempfile.gettempdir()


def _explained(error: BaseException) -> ThresherError:
    try:
        from tasks.clients.surroundings import explained  # only where something fails

        return explained(error)
    except BaseException:  # not even that could be imported: no memory, no file that may be opened
        said, of_the_environment = in_one_line(error)
        return CallError([Problem("", None, said)]) if of_the_environment else RunError(said)


def _thread_failed(failed: threading.ExceptHookArgs) -> None:
    if failed.exc_value is not None and is_unexpected(failed.exc_value):
        _say(f"warning: {_explained(failed.exc_value)}")


def _show_trace(error: BaseException) -> None:
    with suppress(OSError):
        sys.stderr.write(masked("".join(traceback.format_exception(error))))


def _say(text: str) -> None:
    try:
        say_on(error_console(), text)
    except (ImportError, MemoryError):
        with suppress(OSError):
            os.write(sys.stderr.fileno(), f"{plain_block(masked(text))}\n".encode(errors="backslashreplace"))
    except OSError:  # standard error is not read, or it is full: the exit code says what can be said
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - Python writes there once more when it ends
