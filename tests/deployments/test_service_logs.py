"""Reading the log store, without a server."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deployments.services.service_logs import stored
from tasks.clients.logs.log_store import KEPT_DAYS
from tasks.domain.errors import SpecificationError
from tasks.domain.server_log import LogRecord, stream_name
from tasks.domain.settings import read_settings

RUN = "0123abcd-0123-0123-0123-0123456789ab"
OTHER = "0123abcd-0123-0123-0123-0123456789ff"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the log store."""
    monkeypatch.setenv("THRESHER_LOG_STORE", str(tmp_path / "logs"))
    return tmp_path / "logs"


def put(store: Path, task_id: str, message: str, when: datetime) -> Path:
    """Store one line of a run."""
    stream = stream_name(task_id, 0)
    path = store / "digits" / stream / f"{int(when.timestamp() * 1000):013d}-000000.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(LogRecord(when, "digits", stream, task_id, 0, message).to_json())
    return path


def read(name: str, run: str | None = None) -> list[str]:
    """The messages that are stored."""

    async def work() -> list[str]:
        return [line.message async for line in stored(name, run)]

    return asyncio.run(work())


def test_stored__is_of_one_run_or_of_all_without_what_is_too_old_which_goes(store: Path) -> None:
    now = datetime.now(UTC)
    old = put(store, RUN, "old", now - timedelta(days=KEPT_DAYS, minutes=1))
    put(store, OTHER, "later", now)
    put(store, RUN, "earlier", now - timedelta(days=1))
    assert read("digits") == ["earlier", "later"]
    assert not old.exists()
    assert read("digits", RUN) == read("digits", RUN.upper()) == ["earlier"]
    assert read("digits", OTHER) == ["later"]


def test_stored__says_that_there_is_nothing(store: Path) -> None:
    with pytest.raises(SpecificationError, match=r"NAME = 'digits': there is nothing of it.*runtime_log_output"):
        read("digits")
    put(store, OTHER, "x", datetime.now(UTC))
    with pytest.raises(SpecificationError, match=f"--run = '{RUN}': there is nothing of it"):
        read("digits", RUN)


@pytest.mark.parametrize("name", ["a b", "..", "", "a/b", "a\n", "x" * 65])
def test_stored__refuses_what_is_no_name(store: Path, name: str) -> None:
    with pytest.raises(SpecificationError, match=r"NAME = .*should be 1-64 letters"):
        read(name)


@pytest.mark.parametrize("run", ["0", RUN[:8], "a b", "", f"{RUN}-instance-0"])
def test_stored__refuses_what_is_no_whole_id_of_a_run(store: Path, run: str) -> None:
    put(store, RUN, "x", datetime.now(UTC))
    with pytest.raises(SpecificationError, match=r"--run = .*should be the whole id of a run"):
        read("digits", run)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("a b", "--store"), "NAME = 'a b'"), (("digits", "--store", "--follow"), "--follow"),
     (("digits", "--store", "--run", "x"), "--run = 'x'")],
)  # fmt: skip
def test_logs__refuses_a_wrong_call_in_one_message(
    command: Any, store: Path, arguments: tuple[str, ...], said: str
) -> None:
    ran = command("logs", *arguments, env={"THRESHER_LOG_STORE": str(store)})
    assert (ran.returncode, ran.stdout) == (2, "")
    assert said in ran.stderr and "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("THRESHER_LOG_STORE", "ftp://x", "local path, file://, s3://"),
        ("THRESHER_LOG_STORE", "https://h/logs", "should be a local path, file://, s3:// or obs://"),
        ("THRESHER_LOG_STORE", "s3://", "bucket is missing"),
        ("THRESHER_MODEL_STORE", "ftp://x", "local path, file://, s3://"),
        ("THRESHER_LOG_OTLP_ENDPOINT", "collector:4318", "should be an http:// or https:// address"),
        ("THRESHER_LOG_OTLP_ENDPOINT", "http://", "should be an http:// or https:// address"),
    ],
)
def test_settings__that_name_no_place_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, expected: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SpecificationError) as refused:
        read_settings()
    assert f"{variable} = '{value}': " in str(refused.value) and expected in str(refused.value)


def test_settings__take_places_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("/logs", "~/logs", "logs", "file:///logs", "s3://bucket", "obs://bucket/logs"):
        monkeypatch.setenv("THRESHER_LOG_STORE", value)
        assert read_settings().log_store == value
    for value in ("http://collector:4318", "https://h/v1/logs", ""):
        monkeypatch.setenv("THRESHER_LOG_OTLP_ENDPOINT", value)
        assert read_settings().log_otlp_endpoint == value
