"""An error that was not foreseen is one line in plain words, which blames the environment where that is the cause."""

from __future__ import annotations

import errno
import sqlite3

import pytest
from pydantic import BaseModel, ValidationError

from tasks.domain.errors import CallError, Problem, RunError, ThresherError
from tasks.domain.prefect_settings import Given, of_variables
from tasks.domain.unexpected import (
    LONGEST,
    as_ours,
    in_one_line,
    is_unexpected,
    settings_problems,
    unusable_folder,
)


class RustPanic(Exception):
    pass


class PanicException(BaseException):
    pass


class SettingsError(ValueError):
    pass


def no_encoding() -> UnicodeEncodeError:
    return UnicodeEncodeError("ascii", "\xfc", 0, 1, "ordinal not in range(128)")


@pytest.mark.parametrize(
    ("error", "said", "of_the_environment"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/x"), "/x: No space is left on the device", True),
        (OSError(errno.EROFS, "Read-only file system", "/x"), "/x: The file system cannot be written to", True),
        (OSError(errno.EMFILE, "Too many open files"), "Too many files are open in this process", True),
        (OSError(errno.EFBIG, "File too large"), "A file is larger than this process may write", True),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "No further process can be started", True),
        (RuntimeError("can't start new thread"), "No further process can be started", True),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "/x: Permission denied", True),
        (FileNotFoundError(2, "No usable temporary directory found in ['/t']"), "There is no folder for temp", True),
        (MemoryError(), "There is not enough memory", True),
        (RecursionError("maximum recursion depth exceeded"), "A value is nested too deeply", False),
        (no_encoding(), "A text cannot be written as ascii", True),
        (ImportError("Using SOCKS proxy, but the 'socksio' package is not installed"), "A SOCKS proxy needs", True),
        (ModuleNotFoundError("No module named 'orjson'"), "The installation is not complete", True),
        (sqlite3.OperationalError("database is locked"), "Prefect's database is in use by another process", True),
        (sqlite3.DatabaseError("file is not a database"), "Prefect's database is damaged", True),
        (RustPanic("rust future panicked: unknown error"), "A library of the storage has failed", False),
        (PanicException("called unwrap on None"), "A library of the storage has failed", False),
        (ValueError("odd"), "An unexpected error (ValueError): odd.", False),
        (KeyError(), "An unexpected error (KeyError).", False),
        (
            ExceptionGroup("x", [ExceptionGroup("y", [OverflowError("port")])]),
            "An unexpected error (OverflowErr",
            False,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_error__is_told_in_plain_words(error: BaseException, said: str, of_the_environment: bool) -> None:
    found, environment = in_one_line(error)
    assert found.startswith(said)
    assert environment is of_the_environment
    assert found.endswith(".") and "\n" not in found


def test_error__of_several_lines_with_escapes_and_secrets_is_one_plain_short_line() -> None:
    text = "\x1b[31mcannot reach\nhttp://user:hunter3@host/x?Signature=abc " + "y" * 5_000
    found, _ = in_one_line(ValueError(text))
    assert "\x1b" not in found and "\n" not in found and "hunter3" not in found and "abc" not in found
    assert len(found) < LONGEST + 100


@pytest.mark.parametrize(
    ("error", "expected"),
    [(ValueError(), True), (PanicException(), True), (KeyboardInterrupt(), False), (RunError("x"), False)],
)
def test_error__is_unexpected_if_it_is_neither_ours_nor_a_signal(error: BaseException, expected: bool) -> None:
    assert is_unexpected(error) is expected


class APISettings(BaseModel):
    request_timeout: float


def wrong_setting() -> ValidationError:
    with pytest.raises(ValidationError) as raised:
        APISettings.model_validate({"request_timeout": "x"})
    return raised.value


def given(**variables: str) -> list[Given]:
    return of_variables(variables)


def test_setting__of_prefect_is_named_by_its_variable() -> None:
    found = given(PREFECT_API_REQUEST_TIMEOUT="x", PREFECT_OTHER_REQUEST_TIMEOUT="3", OTHER_REQUEST_TIMEOUT="x")
    (problem,) = settings_problems(wrong_setting(), found)
    assert (problem.field, problem.value) == ("PREFECT_API_REQUEST_TIMEOUT", "x")


def test_setting__of_a_profile_says_where_it_stands() -> None:
    (problem,) = settings_problems(wrong_setting(), [])
    assert "profile" in problem.expected and problem.value == "x"


def test_setting__that_cannot_be_parsed_is_named_by_its_variable() -> None:
    error = SettingsError('error parsing value for field "custom_headers" from source "EnvSettingsSource"')
    (problem,) = settings_problems(error, given(PREFECT_CLIENT_CUSTOM_HEADERS="x"))
    assert problem.field == "PREFECT_CLIENT_CUSTOM_HEADERS"


def test_folder__that_cannot_be_written_to_is_named_by_its_variable() -> None:
    found = unusable_folder("THRESHER_CACHE", "/x", OSError(errno.ENOSPC, "No space left on device"))
    assert str(found) == "THRESHER_CACHE = '/x': should be a folder that can be written to: No space left on device"


def ours(error: BaseException, *wrong: Problem) -> ThresherError:
    return as_ours(error, lambda: [*wrong], list)


def test_error__without_a_cause_of_its_own_is_blamed_on_what_is_wrong_with_the_environment() -> None:
    wrong = Problem("SSL_CERT_FILE", "/x", "should be a file")
    for error in (ValueError("odd"), FileNotFoundError(2, "No such file or directory")):
        found = ours(error, wrong)
        assert (type(found), str(found)) == (CallError, "SSL_CERT_FILE = '/x': should be a file")


def test_error__with_a_cause_of_its_own_keeps_it() -> None:
    found = ours(MemoryError(), Problem("HTTP_PROXY", "x", "y"))
    assert isinstance(found, CallError) and str(found).startswith("There is not enough memory")


def test_error__that_nothing_explains_names_the_option_that_shows_its_trace() -> None:
    found = ours(ValueError("odd"))
    assert (type(found), str(found)) == (
        RunError, "An unexpected error (ValueError): odd. `--verbose` shows the trace.",
    )  # fmt: skip
