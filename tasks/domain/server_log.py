"""Model server output, with bounds on how much of it is shown and kept."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime


class LineBudget:
    """How many lines may be shown: a burst at once, and ``per_second`` on average."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._left = float(burst)
        self._at: float | None = None
        self._held_back = 0

    def allow(self, now_seconds: float) -> bool:
        """Whether one more line may be shown now; otherwise it is counted as held back."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now_seconds - self._at) * self._per_second)
        self._at = now_seconds
        if self._left < 1:
            self._held_back += 1
            return False
        self._left -= 1
        return True

    def take_held_back(self) -> int:
        """The number of lines held back since the last call."""
        held_back, self._held_back = self._held_back, 0
        return held_back


class KeptLines:
    """The lines kept of an endless output: the first ones, up to a number of bytes, and the last ones."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes
        self._last: deque[str] = deque()
        self._held = 0
        self._dropped = 0

    def take(self, lines: Sequence[str]) -> list[str]:
        """The lines that are kept now of the next ones."""
        kept = []
        for line in lines:
            size = len(line.encode("utf-8", "replace")) + 1
            if size <= self._left:
                self._left -= size
                kept.append(line)
                continue
            self._left = 0
            self._last.append(line)
            self._held += size
            while self._held > LAST_BYTES:
                gone = len(self._last.popleft().encode("utf-8", "replace")) + 1
                self._held -= gone
                self._dropped += gone
        return kept

    def rest(self) -> list[str]:
        """For the end of the output: a note on how much is missing, and the last lines."""
        missing = [f"({self._dropped} bytes are left out: THRESHER_MAX_LOG_BYTES)"] if self._dropped else []
        return [*missing, *self._last]


LAST_BYTES = 256 << 10
"""Bytes of the last lines beyond the bound, which are also kept: they show how the output ended."""


def stream_name(task_id: str, instance: int) -> str:
    """The name of the log store's stream for one instance of one run."""
    return f"{task_id}-instance-{instance}"


def is_of_run(stream: str, task_id: str) -> bool:
    """Whether a stream of the log store is from an instance of this run."""
    return stream.startswith(stream_name(task_id, 0)[:-1])


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line of model server output. The group is the service, the stream one instance of one run."""

    time: datetime
    group: str
    stream: str
    task_id: str
    instance: int
    message: str

    def to_json(self) -> bytes:
        """The record as one line of JSON."""
        fields = asdict(self) | {"time": self.time.astimezone(UTC).isoformat(timespec="milliseconds")}
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> LogRecord:
        """The record in one line of JSON. Raises ValueError if the line is not from the log store."""
        try:
            found = json.loads(line)
            texts = {name: found[name] for name in ("group", "stream", "task_id", "message")}
            return cls(time=datetime.fromisoformat(found["time"]), instance=int(found["instance"]), **texts)
        except (KeyError, TypeError) as error:
            raise ValueError(f"should be a line of the log store: {error}") from None
