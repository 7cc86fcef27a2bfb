"""Models of rows, served, for tests of rows that are joined in one request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from engine.runs import ROWS, Shard, local_items, make_run

Rows = list[dict[str, float]]
Model = Callable[[Rows], Any]


class Server(ThreadingHTTPServer):
    """A model server that answers with a function of the rows; ``sizes`` are the rows of each request."""

    daemon_threads = True
    request_queue_size = 1024
    """More than connect at once: those that the usual 5 have no room for try again after a second, and then three."""

    def __init__(self, model: Model) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model = model
        self.sizes: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._answer(b"{}")

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["data"]["req_data"]
        self.server.sizes.append(len(rows))
        answer = self.server.model(rows)
        self._answer(answer if isinstance(answer, bytes) else json.dumps(answer).encode())

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(model: Model) -> Iterator[Server]:
    """The model, served."""
    with Server(model) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def first_row_only(count: int) -> Model:
    """A model that reads the first row only, and answers with an array of ``count`` numbers."""

    def model(rows: Rows) -> Any:
        total = rows[0]["a"] + rows[0]["b"]
        return {"probabilities": [round(total / (number + 1), 6) for number in range(count)]}

    return model


def each_row(rows: Rows) -> Any:
    """A model that answers each row with that row's answer."""
    return {"data": {"resp_data": [{"sum": round(row["a"] + row["b"], 6), "name": "汉 字"} for row in rows]}}


def rounding_otherwise(rows: Rows) -> Any:
    """The same, but the last digits depend on how many rows there are."""
    return {"sums": [(row["a"] + row["b"]) / 3 * (1 + 1e-9 * len(rows)) for row in rows]}


def table(rows: int, start: int = 0) -> bytes:
    """A CSV file; no two rows are alike."""
    return b"".join(b"%d,%d.5\n" % (number, number * 3) for number in range(start, start + rows))


def infer(folder: Path, server: Server, files: dict[str, bytes], **fields: Any) -> Shard:
    """Infer the files; the server's ``sizes`` are those of this run only."""
    server.sizes.clear()
    run = make_run(server.url, str(folder / "out"), request=ROWS, **fields)
    return Shard(run, local_items(folder / "in", files)).infer()
