"""An OpenTelemetry collector that keeps the log records it receives: OTLP over HTTP, in a thread of this process.

with OtlpReceiver() as receiver:
    LogExporter(receiver.url, "service", "task").emit(record)
    receiver.received()
"""

from __future__ import annotations

import gzip
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest


@dataclass(frozen=True)
class Received:
    """One log record, with the attributes of its resource."""

    path: str
    body: str
    resource: dict[str, str]
    attributes: dict[str, str | int]
    nanoseconds: int


class OtlpReceiver:
    """The collector; with another `status` it keeps nothing and answers with that."""

    def __init__(self, status: int = 200) -> None:
        self._status = status
        self._records: list[Received] = []
        self._lock = threading.Lock()
        self.requests = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver._take(self.path, body)
                self.send_response(receiver._status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """Its address, without the path for logs."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def received(self, **resource: str) -> list[Received]:
        """The records so far, of the resources that have these attributes (dots are written as double underscores)."""
        wanted = {name.replace("__", ".") for name in resource}
        values = {name.replace("__", "."): value for name, value in resource.items()}
        with self._lock:
            return [one for one in self._records if all(one.resource.get(name) == values[name] for name in wanted)]

    def _take(self, path: str, body: bytes) -> None:
        with self._lock:
            self.requests += 1
            if self._status != 200:
                return
            for group in ExportLogsServiceRequest.FromString(body).resource_logs:
                resource = {one.key: one.value.string_value for one in group.resource.attributes}
                self._records += [
                    Received(
                        path, record.body.string_value, resource,
                        {one.key: one.value.string_value or one.value.int_value for one in record.attributes},
                        record.time_unix_nano,
                    )
                    for scope in group.scope_logs for record in scope.log_records
                ]  # fmt: skip

    def __enter__(self) -> OtlpReceiver:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
