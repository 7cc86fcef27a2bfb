"""Runtime log output to a real OTLP receiver, and to none."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import pytest
from fakes.otlp_receiver import OtlpReceiver
from fakes.processes import closed_port, poll

from tasks.clients.logs.log_export import LogExporter
from tasks.domain.server_log import LogRecord, stream_name

NOON = datetime(2026, 1, 2, 12, 0, 0, 250000, UTC)


def records(count: int) -> list[LogRecord]:
    return [LogRecord(NOON, "digits", stream_name("t", 1), "t", 1, f"line {number} ü") for number in range(count)]


@pytest.mark.parametrize("path", ["", "/", "/v1/logs", "/v1/logs/"])
def test_export__sends_every_record_with_where_it_comes_from(path: str) -> None:
    with OtlpReceiver() as receiver:
        exporter = LogExporter(receiver.url + path, "digits", "t")
        for record in records(20_000):
            exporter.emit(record)
        exporter.close()
        found = receiver.received(service__name="digits", thresher__task_id="t")
    assert sorted(one.body for one in found) == sorted(record.message for record in records(20_000))
    assert {one.path for one in found} == {"/v1/logs"}
    assert {one.nanoseconds for one in found} == {int(NOON.timestamp()) * 10**9 + 250_000_000}
    assert {tuple(one.attributes.items()) for one in found} == {
        (("thresher.instance", 1), ("thresher.stream", "t-instance-1"))
    }


def test_export__does_not_wait_for_the_end() -> None:
    with OtlpReceiver() as receiver:
        exporter = LogExporter(receiver.url, "digits", "t")
        exporter.emit(records(1)[0])
        poll(receiver.received, "the record")
        exporter.close()


def test_export__to_a_collector_that_takes_nothing_costs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), OtlpReceiver(status=400) as receiver:
        exporter = LogExporter(receiver.url, "digits", "t")
        exporter.emit(records(1)[0])
        exporter.close(1.0)
        assert receiver.requests == 1
    assert "Traceback" not in caplog.text


@pytest.mark.timeout(30)  # all batches together would take a minute
def test_export__to_nobody_ends_in_time(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), closed_port() as port:
        exporter = LogExporter(f"http://127.0.0.1:{port}", "digits", "t")
        for record in records(20_000):
            exporter.emit(record)
        exporter.close(0.5)
    assert "Traceback" not in caplog.text
