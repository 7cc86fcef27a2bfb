"""The responses of the fake model server: the markers in an item, and its counts.

A marker is `FAIL:<what>[:<number>[:<number>]]` anywhere in the body; the item is the body itself. `<times>` counts the
requests of the same item (kept over restarts if there is a state file), after which the item succeeds.

| marker | answer |
| --- | --- |
| FAIL:500, FAIL:404, any other status | that status, always |
| FAIL:503:<times> | that status, that many times |
| FAIL:429:<retry-after>:<times> | 429 with the header Retry-After, that many times |
| FAIL:badjson, FAIL:empty, FAIL:20mb | 200 with half a JSON text, no body, 20 MB of JSON |
| FAIL:slow:<seconds> | the usual answer, that much later |
| FAIL:close, FAIL:close:<times> | the connection is closed without an answer |
| FAIL:hang | no answer ever, the connection stays open |
| FAIL:until:<file> | the usual answer, once the file exists |
| FAIL:die, FAIL:die:<times> | the server's process ends with code 137 |
| FAIL:leak:<MiB> | the usual answer, and the server leaks that much memory |
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import orjson

MARKER = re.compile(rb"FAIL:([a-z0-9]+)(?::(\d+(?:\.\d+)?))?(?::(\d+))?")
GATE = re.compile(rb'FAIL:until:([^\s"]+)')
V2_PATH = re.compile(r"/v2/models/([^/]+)/infer")
V2_ID = re.compile(rb'"id":\s*"([^"]*)"')
V2_ROWS = re.compile(rb'"shape":\s*\[(\d+)')
LEAKED: list[bytes] = []
IRIS = ("setosa", "versicolor", "virginica")


@dataclass(frozen=True)
class Answer:
    """One answer; `action` is `answer`, `close`, `hang` or `die`."""

    status: int = 200
    body: bytes = b""
    headers: bytes = b""
    delay_seconds: float = 0.0
    gate: Path | None = None
    """The answer waits until this file exists."""
    action: str = "answer"


@dataclass
class Counts:
    """Counts so far; `seen` (requests of each item with a marker) survives a restart through the state file."""

    state: Path | None = None
    requests: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    items: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    in_flight: int = 0
    max_in_flight: int = 0
    connections: int = 0
    starts: int = 1
    first_request_at: float = 0.0
    """Seconds since 1970, of POSTs only."""
    last_answer_at: float = 0.0

    def __post_init__(self) -> None:
        if self.state and self.state.exists():
            stored = json.loads(self.state.read_text())
            self.seen = Counter(stored["seen"])
            self.starts = stored["starts"] + 1
        self.save()

    def forget(self) -> None:
        """Reset the counts, except for requests in flight."""
        for counter in (self.requests, self.statuses, self.items, self.seen):
            counter.clear()
        self.max_in_flight, self.connections = self.in_flight, 0
        self.first_request_at = self.last_answer_at = 0.0
        self.save()

    def save(self) -> None:
        """Write the state file by atomic rename: the process may end at any moment."""
        if self.state:
            fresh = self.state.with_suffix(f".{os.getpid()}")  # several instances may share the file
            fresh.write_text(json.dumps({"seen": self.seen, "starts": self.starts}))
            fresh.rename(self.state)

    def see(self, body: bytes) -> int:
        """Count one more request of this item and return its number, from 1."""
        key = item_key(body)
        self.seen[key] += 1
        self.save()
        return self.seen[key]

    def came(self) -> None:
        """Count one more request in flight."""
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        self.first_request_at = self.first_request_at or time.time()

    def went(self) -> None:
        """Count one request less in flight."""
        self.in_flight -= 1
        self.last_answer_at = time.time()

    def as_json(self) -> bytes:
        """The statistics; `items` and `seen` are by `item_key`."""
        names = (
            "requests", "statuses", "items", "seen", "max_in_flight", "connections", "starts", "first_request_at",
            "last_answer_at",
        )  # fmt: skip
        return json.dumps({name: getattr(self, name) for name in names}).encode()


@cache
def json_of_20_mb() -> bytes:
    """Made on demand: otherwise each start of a fake server would pay for it."""
    return b'{"big": "' + b"x" * (20 * 1024 * 1024 - 11) + b'"}'


def item_key(body: bytes) -> str:
    """The name of an item in the statistics: the first 16 digits of its MD5.

    For a multipart body, that of the bytes of its first part, since each client draws its own boundary.
    """
    if body.startswith(b"--"):
        boundary = body[: body.find(b"\r\n")]
        start = body.find(b"\r\n\r\n") + 4
        body = body[start : body.find(b"\r\n" + boundary, start)]
    return hashlib.md5(body, usedforsecurity=False).hexdigest()[:16]


def answer_for(path: str, body: bytes, counts: Counts) -> Answer:
    """The answer to a POST."""
    marker = MARKER.search(body) if b"FAIL:" in body else None
    if marker:
        return _failure(marker, path, body, counts)
    if path.startswith("/v2/"):
        return v2_answer(path, body)
    return Answer(body=usual_body(path, body))


def v2_answer(path: str, body: bytes) -> Answer:
    """The response of the open inference protocol, version 2: for each row of the first input, the body's length.

    The id and the shape are found by search, not by parsing: binary tensors may follow the JSON, and parsing would cost
    more than the rest of the request.
    """
    model, rows = V2_PATH.fullmatch(path), V2_ROWS.search(body)
    if not model or not rows:
        return Answer(400, b'{"error": "not an inference request"}')
    identity = V2_ID.search(body)
    numbers = b",".join([b"%d" % len(body)] * int(rows[1]))
    given = b'"id":"%s",' % identity[1] if identity else b""
    return Answer(
        body=b'{"model_name":"%s",%s"outputs":[{"name":"n","datatype":"INT64","shape":[%s,1],"data":[%s]}]}'
        % (model[1].encode(), given, rows[1], numbers)
    )


def usual_body(path: str, body: bytes) -> bytes:
    """The body of a success: an echo, one iris answer per element, the item's key, or a small JSON."""
    if path == "/echo":
        return body
    if path == "/key":
        return b'{"key": "%s"}' % item_key(body).encode()
    if path == "/iris":
        rows = orjson.loads(body)["data"]["req_data"]
        return orjson.dumps({"data": {"resp_data": [iris(row) for row in rows]}})
    return b'{"ok": true, "n": %d}' % len(body)


def iris(row: dict[str, Any]) -> dict[str, Any]:
    """The answer to one element, computed from its fields only: their sum, and one of three names chosen by it."""
    total = round(sum(map(float, row.values())), 6)
    return {"predictresult": IRIS[int(total) % 3], "sum": total}


def _failure(marker: re.Match[bytes], path: str, body: bytes, counts: Counts) -> Answer:
    what = marker[1].decode()
    first, second = marker[2], marker[3]
    number = counts.see(body)
    usual = Answer(body=usual_body(path, body))
    if what == "slow":
        return Answer(body=usual.body, delay_seconds=float(first or 1))
    if what == "leak":
        LEAKED.append(os.urandom(1) * (int(float(first or 1)) << 20))
        return usual
    if what == "until" and (gate := GATE.match(body, marker.start())):
        return Answer(body=usual.body, gate=Path(gate[1].decode()))
    if what in {"close", "die", "hang"}:
        over = first is not None and number > float(first)
        return usual if over else Answer(action=what)
    if what in {"badjson", "empty", "20mb"}:
        return Answer(body=json_of_20_mb() if what == "20mb" else {"badjson": b'{"ok": tr', "empty": b""}[what])
    if what == "429":
        over = second is not None and number > int(second)
        return usual if over else Answer(429, b'{"error": "slow down"}', b"Retry-After: %s\r\n" % (first or b"1"))
    if not what.isdigit():
        return Answer(400, b'{"error": "unknown marker"}')
    over = first is not None and number > float(first)
    return usual if over else Answer(int(what), b'{"error": "as asked"}')
