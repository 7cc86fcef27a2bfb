"""The log of a run's process: every failure is one line, an unexpected one as well."""

from __future__ import annotations

import logging

import pytest

from tasks.domain.errors import RunError
from tasks.prefect_side.run_logs import in_our_words, plain_errors


def logged(error: Exception) -> logging.LogRecord:
    """The record of an error that was logged as Prefect's engine does it."""
    plain_errors()
    logger = logging.getLogger("prefect.flow_runs")
    try:
        raise error
    except Exception as raised:
        record = logger.makeRecord(
            logger.name, logging.ERROR, "", 0, "Encountered an exception during execution: %r", (raised,),
            (type(raised), raised, raised.__traceback__),
        )  # fmt: skip
    assert logger.filter(record)
    return record


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RunError("The run failed."), "The run failed."),
        (KeyError("x"), "An unexpected error (KeyError): 'x'. `--verbose` shows the trace."),
    ],
    ids=["expected", "unexpected"],
)
def test_log__of_a_run_has_no_trace(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("prefect"), "level", logging.INFO)
    logging.getLogger("prefect").manager._clear_cache()  # type: ignore[attr-defined]
    record = logged(error)
    assert record.exc_info is None
    assert record.getMessage() == said


def test_unexpected_error__is_raised_in_our_words_with_its_cause() -> None:
    error = KeyError("x")
    with pytest.raises(RunError, match="An unexpected error") as raised, in_our_words():
        raise error
    assert raised.value.__cause__ is error


def test_expected_errors_and_signals__pass_as_they_are() -> None:
    for error in (RunError("x"), KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, in_our_words():
            raise error
        assert raised.value is error
