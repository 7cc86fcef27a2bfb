"""What an error that was not foreseen is called: one line in plain words, and what is to be changed.

Nothing here looks at the machine: see :mod:`tasks.clients.surroundings`.
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
"""Letters of a library's message that are shown."""
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
"""Names of the classes of a failure of Rust code, which cannot be imported."""
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
    """The first error of a group, and of groups in it; else the error itself."""
    while isinstance(error, BaseExceptionGroup) and error.exceptions:
        error = error.exceptions[0]
    return error


def is_unexpected(error: BaseException) -> bool:
    """Whether this is an error, not a signal to stop, and none of Thresher's own tree."""
    return not isinstance(error, ThresherError) and (isinstance(error, Exception) or type(error).__name__ in PANICS)


def in_one_line(error: BaseException) -> tuple[str, bool]:
    """An error as one sentence without its stack, and whether its cause is in the environment of the process."""
    error = root_of(error)
    said = " ".join(plain_line(redact(masked(str(error)))).split())
    said = f"{said[:LONGEST]}..." if len(said) > LONGEST else said
    for part, meaning in _TEXTS:
        if part in said:
            return f"{meaning}.", True
    if isinstance(error, OSError) and error.errno is not None:
        where = plain_line(redact(str(error.filename))) if error.filename else ""
        if meaning := _LIMITS.get(error.errno, ""):
            return f"{where}: {meaning}." if where else f"{meaning}.", True
        if where:
            return f"{where}: {error.strerror or said}.", True
        return f"The system refused a call: {error.strerror or said} ({type(error).__name__}).", False
    if isinstance(error, UnicodeEncodeError):
        return f"A text cannot be written as {error.encoding}: set PYTHONUTF8=1, or a locale with UTF-8.", True
    if isinstance(error, MemoryError):
        return f"{_LIMITS[errno.ENOMEM]}.", True
    if isinstance(error, RecursionError):
        return "A value is nested too deeply to be read.", False
    if isinstance(error, ImportError):
        return f"The installation is not complete ({said}): install Thresher again.", True
    if type(error).__name__ in PANICS:
        return f"A library of the storage has failed ({said}): check the storage's endpoint, region and keys.", False
    kind = type(error).__name__
    return f"An unexpected error ({kind}){f': {said}' if said else ''}{'' if said.endswith('.') else '.'}", False


def cause_of_library(error: BaseException) -> str:
    """What a library says of a file or a server, in a few words of a sentence: what the system says, else its text."""
    said = getattr(error, "strerror", None) or " ".join(plain_line(redact(masked(str(error)))).split())
    return str(said)[:LONGEST].rstrip(".") or type(error).__name__


def unusable_folder(variable: str, folder: str, error: OSError) -> CallError:
    """A folder that a variable names, or its default, cannot be written to: no room, no permission, no folder."""
    why = error.strerror or str(error)
    return CallError([Problem(variable, folder, f"should be a folder that can be written to: {why}")])


def settings_problems(error: BaseException, given: Sequence[Given]) -> list[Problem]:
    """The settings of Prefect that are wrong, by where they are given, if that is what an error says; else none."""
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
    if field == "value":  # of the settings as a whole, such as an address that is none
        for name in (SERVER, "PREFECT_UI_URL"):
            if (one := first_of(given, name)) and one.value:
                return Problem(one.where, one.value, expected)
        return Problem("PREFECT_*", None, expected)
    tail = f"_{field.upper()}"
    return Problem(f"PREFECT_..{tail}", value, f"{expected} (set in Prefect's profile: `prefect profile inspect`)")


def as_ours(
    error: BaseException, wrong: Callable[[], list[Problem]], given: Callable[[], Sequence[Given]]
) -> ThresherError:
    """An unexpected error as one of Thresher's tree: what in the environment is wrong, else the error in one line.

    ``wrong`` looks at the environment; it is asked only where the error itself does not name what is to be changed.
    ``given`` says where which of Prefect's settings is given.
    """
    if problems := settings_problems(error, given()):
        return CallError(problems)
    said, surroundings = in_one_line(error)
    if (isinstance(root_of(error), OSError) or not surroundings) and (problems := wrong()):
        return CallError(problems)
    if surroundings:
        return CallError([Problem("", None, said)])
    return RunError(f"{said} `{VERBOSE}` shows the trace.")
