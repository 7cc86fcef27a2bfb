"""What model servers print, to an OTLP address through the OpenTelemetry exporter."""

from __future__ import annotations

import logging
import threading
from typing import Any

from tasks.domain.server_log import LogRecord

LOGS_PATH = "/v1/logs"
TIMEOUT_SECONDS = 5.0
SEND_MILLISECONDS = 500
WAITING = 1 << 16
"""Lines that wait for the collector at most; a burst of more, or a collector that is slower, loses the oldest."""
AT_ONCE = 1024


class LogExporter:
    """Sends records to a collector in the background. A collector that does not answer costs the run nothing.

    ``endpoint`` is the collector's OTLP address over HTTP, such as ``http://collector:4318``.
    """

    def __init__(self, endpoint: str, service: str, task_id: str) -> None:
        # Imported here: it takes time, and few need it.
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
        from opentelemetry.sdk._logs import LoggerProvider
        from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
        from opentelemetry.sdk.resources import Resource

        for name in ("opentelemetry.exporter.otlp.proto.http._log_exporter", "opentelemetry.sdk._shared_internal"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # else a traceback for every batch that is not taken
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
        """Take a record; it is sent with others in a moment."""
        nanoseconds = round(record.time.timestamp() * 1e6) * 1000  # a float holds no more
        self._logger.emit(
            timestamp=nanoseconds,
            observed_timestamp=nanoseconds,
            body=record.message,
            severity_text="INFO",
            attributes={"thresher.instance": record.instance, "thresher.stream": record.stream},
        )

    def close(self, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        """Send what is left, for so long at most. Blocks."""
        # The library's own flush takes a timeout, and tries every batch for seconds all the same.
        flushing = threading.Thread(target=self._provider.force_flush, daemon=True)
        flushing.start()
        flushing.join(timeout_seconds)
        if flushing.is_alive():
            self._exporter.shutdown()  # from now on it takes nothing, at once
        self._provider.shutdown()
