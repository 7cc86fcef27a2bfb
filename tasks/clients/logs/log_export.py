"""Export of model server output to an OTLP address, through the OpenTelemetry exporter."""

from __future__ import annotations

import logging
import threading
from typing import Any

from tasks.domain.server_log import LogRecord

LOGS_PATH = "/v1/logs"
TIMEOUT_SECONDS = 5.0
SEND_MILLISECONDS = 500
WAITING = 1 << 16
"""Maximum lines that wait for the collector; in a larger burst, or with a slow collector, the oldest are lost."""
AT_ONCE = 1024


class LogExporter:
    """Sends records to a collector in the background. An unresponsive collector does not delay the run.

    ``endpoint`` is the collector's OTLP address over HTTP, such as ``http://collector:4318``.
    """

    def __init__(self, endpoint: str, service: str, task_id: str) -> None:
        # Imported here: it is slow, and rarely needed.
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.resources import Resource

        for name in ("opentelemetry.exporter.otlp.proto.http._log_exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # else a traceback for every failed batch
        base = endpoint.rstrip("/")
        address = base if base.endswith(LOGS_PATH) else base + LOGS_PATH
        self._provider: Any = LoggerProvider(
            resource=Resource.create({"service.name": service, "thresher.task_id": task_id}),
            shutdown_on_exit=False,
        )
        self._exporter: Any = OTLPLogExporter(endpoint=address, timeout=TIMEOUT_SECONDS)
        processor = BatchLogRecordProcessor(
            self._exporter,
            schedule_delay_millis=SEND_MILLISECONDS,
            max_queue_size=WAITING,
            max_export_batch_size=AT_ONCE,
        )
        self._provider.add_log_record_processor(processor)
        self._logger: Any = self._provider.get_logger("thresher")

    def emit(self, record: LogRecord) -> None:
        """Accept a record; it is sent shortly, in a batch."""
        nanoseconds = round(record.time.timestamp() * 1e6) * 1000  # a float is no more precise
        self._logger.emit(
            timestamp=nanoseconds,
            observed_timestamp=nanoseconds,
            body=record.message,
            severity_text="INFO",
            attributes={"thresher.instance": record.instance, "thresher.stream": record.stream},
        )

    def close(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Send the remaining records, within ``timeout_seconds``. Blocks."""
        # The library's own flush takes a time-out, but still tries every batch for seconds.
        flushing = threading.Thread(target=self._provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(timeout_seconds)
        if flushing.is_alive():
            self._exporter.shutdown()  # from now on it rejects everything at once
        self._provider.shutdown()
