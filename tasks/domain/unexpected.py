"""Messages for unexpected errors: one line in plain words, and how to fix the cause.

Nothing here examines the machine: see :mod:`tasks.clients.surroundings.surroundings`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from tasks.domain.errors import CallError, Problem, RunError, ThresherError
from tasks.domain.masking import masked
from tasks.domain.paths import redact
from tasks.domain.plain_text import plain_line
from tasks.domain.prefect_settings import SERVER, Given, first_of, giver_of

LONGEST = 300
"""Characters of a library's message that are shown."""
VERBOSE = "--verbose"

_LIMITS = {
    errno.ENOSPC: "No space is left on the device: free some, or choose another folder",
    errno.EDQUOT: "The disk quota is used up: free some space, or choose another folder",
    errno.EROFS: "The file system cannot be written to: choose another folder",
    errno.EMFILE: "Too many files are open in this process: raise the limit with `ulimit -n 4096`",
    errno.ENFILE: "Too many files are open on this machine: ask its administrator",
    errno.EFBIG: "A file is larger than this process may write: raise the limit with `ulimit -f unlimited`",
    errno.ENOMEM: "There is not enough memory: free some, or raise the limit (`ulimit -v`)",
    errno.EAGAIN: "No further process can be started: raise the limit with `ulimit -u`, or end some",
}
_NO_TEMPORARY_FOLDER = "There is no folder for temporary files: set TMPDIR to one that can be written to"
PANICS = frozenset({"PanicException", "RustPanic"})
"""Class names of panics in Rust code; the classes cannot be imported."""
_FIELD = re.compile(r'for field "(\w+)"')
_OTHER_HOME = "set PREFECT_HOME to another folder"
_TEXTS: tuple[tuple[str, str], ...] = (
    ("No usable temporary directory", _NO_TEMPORARY_FOLDER),
    ("can't start new thread", _LIMITS[errno.EAGAIN]),
    ("database is locked", f"Prefect's database is in use by another process: {_OTHER_HOME}"),
    ("database disk image is malformed", f"Prefect's database is damaged: {_OTHER_HOME}"),
    ("file is not a database", f"Prefect's database is damaged: {_OTHER_HOME}"),
    ("readonly database", f"Prefect's database cannot be written to: {_OTHER_HOME}"),
    ("unable to open database file", f"Prefect's database cannot be opened: {_OTHER_HOME}"),
    ("disk I/O error", "Prefect's database cannot be written to: a full disk, or a limit such as `ulimit -f`"),
    ("disk is full", _LIMITS[errno.ENOSPC]),
    ("failed to map segment from shared object", _LIMITS[errno.ENOMEM]),
    ("Could not determine home directory", "The home folder is not known: set HOME"),
    ("'socksio'", "A SOCKS proxy needs the package socksio: install it, or take the proxy out of the environment"),
)  # fmt: skip


def root_of(error: BaseException) -> BaseException:
    """The first error of a group, also of nested groups; otherwise the error itself."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


def is_unexpected(error: BaseException) -> bool:
    """Whether this is an error, not a signal to stop, and is not in Thresher's own tree."""
    return not isinstance(error, ThresherError) and (isinstance(error, Exception) or type(error).__name__ in PANICS)


def in_one_line(error: BaseException) -> tuple[str, bool]:
    """An error as one sentence without its stack trace, and whether its cause is in the environment of the process."""
    error = root_of(error)
    detail = " ".join(plain_line(redact(masked(str(error)))).split())
    detail = f"{detail[:LONGEST]}..." if len(detail) > LONGEST else detail
    for part, meaning in _TEXTS:
        if part in detail:
            return f"{meaning}.", True
    if isinstance(error, OSError) and error.errno is not None:
        where = plain_line(redact(str(error.filename))) if error.filename else ""
        if meaning := _LIMITS.get(error.errno, ""):
            return f"{where}: {meaning}." if where else f"{meaning}.", True
        if where:
            return f"{where}: {error.strerror or detail}.", True
        return f"The system refused a call: {error.strerror or detail} ({type(error).__name__}).", False
    if isinstance(error, UnicodeEncodeError):
        return f"A text cannot be written as {error.encoding}: set PYTHONUTF8=1, or a locale with UTF-8.", True
    if isinstance(error, MemoryError):
        return f"{_LIMITS[errno.ENOMEM]}.", True
    if isinstance(error, RecursionError):
        return "A value is nested too deeply to be read.", False
    if isinstance(error, ImportError):
        return f"The installation is not complete ({detail}): install Thresher again.", True
    if type(error).__name__ in PANICS:
        return f"A library of the storage has failed ({detail}): check the storage's endpoint, region and keys.", False
    kind = type(error).__name__
    return f"An unexpected error ({kind}){f': {detail}' if detail else ''}{'' if detail.endswith('.') else '.'}", False


def cause_of_library(error: BaseException) -> str:
    """A library's error about a file or a server as part of a sentence: the system's message, else its own."""
    detail = getattr(error, "strerror", None) or " ".join(plain_line(redact(masked(str(error)))).split())
    return str(detail)[:LONGEST].rstrip(".") or type(error).__name__


def unusable_folder(variable: str, folder: str, error: OSError | str) -> CallError:
    """The error for a folder, set by a variable or by default, that is missing, full or without write permission."""
    why = error if isinstance(error, str) else error.strerror or str(error)
    return CallError([Problem(variable, folder, f"should be a folder that can be written to: {why}")])


def settings_problems(error: BaseException, given: Sequence[Given]) -> list[Problem]:
    """The wrong Prefect settings that an error reports, by their origin; empty for other errors."""
    error = root_of(error)
    if type(error).__name__ == "ValidationError" and str(getattr(error, "title", "")).endswith("Settings"):
        from tasks.domain.package import validation_problems  # pydantic takes a while to import

        found = [
            (one.field.rsplit(".", 1)[-1], one.value, one.expected) for one in validation_problems(cast(Any, error))
        ]
        derived = "default factory"
        found = [one for one in found if derived not in one[2].lower()] or found
    elif type(error).__name__ == "SettingsError" and (named := _FIELD.search(str(error))):
        found = [(named[1], None, "cannot be read: a value of several parts is given as JSON")]
    else:
        return []
    return [_setting(*one, given) for one in found]


def _setting(field: str, value: object, expected: str, given: Sequence[Given]) -> Problem:
    if giver := giver_of(field, value, given):
        return Problem(giver.where, giver.value, expected)
    if field == "value":  # of the settings as a whole, such as an invalid address
        for name in (SERVER, "PREFECT_UI_URL"):
            if (one := first_of(given, name)) and one.value:
                return Problem(one.where, one.value, expected)
        return Problem("PREFECT_*", None, expected)
    tail = f"_{field.upper()}"
    return Problem(f"PREFECT_..{tail}", value, f"{expected} (set in Prefect's profile: `prefect profile inspect`)")


def as_ours(
    error: BaseException, wrong: Callable[[], list[Problem]], given: Callable[[], Sequence[Given]]
) -> ThresherError:
    """An unexpected error as one of Thresher's tree: the problems of the environment, else the error in one line.

    ``wrong`` examines the environment; it is called only if the error itself does not name the fix. ``given`` lists
    Prefect's settings with their origins.
    """
    if problems := settings_problems(error, given()):
        return CallError(problems)
    detail, surroundings = in_one_line(error)
    if (isinstance(root_of(error), OSError) or not surroundings) and (problems := wrong()):
        return CallError(problems)
    if surroundings:
        return CallError([Problem("", None, detail)])
    return RunError(f"{detail} `{VERBOSE}` shows the trace.")
