"""What a model server prints: masked, and with a bound on how much of it is shown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, quote_plus

SECRET_LENGTH = 4
"""Shorter values are no secrets, and would hide half of every text."""
MASK = b"***"
_MASKED = re.compile(b"\0+")


class Masker:
    """Hides secrets in what a program prints."""

    def __init__(self, secrets: Iterable[str]) -> None:
        # Each line of a secret of several lines as well: programs print them indented, or with line ends escaped.
        parts = {part.strip() for one in secrets for part in (one, *one.splitlines())}
        hidden = {form for part in parts if len(part) >= SECRET_LENGTH for form in _forms(part)}
        self._secrets = sorted((one.encode() for one in hidden), key=len, reverse=True)

    @property
    def longest(self) -> int:
        """Bytes of the longest secret: so far before a part that is shown may begin one that reaches into it."""
        return max(map(len, self._secrets), default=0)

    def blank(self, text: bytes) -> bytes:
        """The text with every secret as NUL bytes, of the same length."""
        blanked: bytearray | None = None
        for secret in self._secrets:
            found = text.find(secret)
            while found >= 0:  # also where secrets overlap
                blanked = bytearray(text) if blanked is None else blanked
                blanked[found : found + len(secret)] = bytes(len(secret))
                found = text.find(secret, found + 1)
        return text if blanked is None else bytes(blanked)

    @staticmethod
    def shown(blanked: bytes) -> bytes:
        """A blanked text with ``***`` for what was blanked."""
        return _MASKED.sub(MASK, blanked)

    def mask(self, text: bytes) -> bytes:
        """The text with ``***`` in place of every secret."""
        return self.shown(self.blank(text.replace(b"\0", b"")))


def _forms(secret: str) -> set[str]:
    """A secret as programs print it: as it is, in a URL, and in JSON."""
    in_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    return {secret, quote(secret, safe=""), quote(secret), quote_plus(secret)} | in_json


class LineBudget:
    """How many lines may be shown: a burst at once, and so many a second in the long run."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._left = float(burst)
        self._at: float | None = None
        self._held_back = 0

    def allow(self, now_seconds: float) -> bool:
        """Whether one more line may be shown now; else it is counted as held back."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now_seconds - self._at) * self._per_second)
        self._at = now_seconds
        if self._left < 1:
            self._held_back += 1
            return False
        self._left -= 1
        return True

    def take_held_back(self) -> int:
        """How many lines were held back since this was asked last."""
        held_back, self._held_back = self._held_back, 0
        return held_back


def stream_name(task_id: str, instance: int) -> str:
    """The log store's stream of one instance of one run."""
    return f"{task_id}-instance-{instance}"


def is_of_run(stream: str, task_id: str) -> bool:
    """Whether a stream of the log store is that of an instance of this run."""
    return stream.startswith(stream_name(task_id, 0)[:-1])


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One line that a model server has printed. The group is the service, the stream one instance of one run."""

    time: datetime
    group: str
    stream: str
    task_id: str
    instance: int
    message: str

    def to_json(self) -> bytes:
        """As one line of JSON."""
        fields = {
            "time": self.time.astimezone(UTC).isoformat(timespec="milliseconds"),
            "group": self.group,
            "stream": self.stream,
            "task_id": self.task_id,
            "instance": self.instance,
            "message": self.message,
        }
        return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> LogRecord:
        """From one line of JSON. Raises ValueError if it is none of ours."""
        try:
            fields = json.loads(line)
            return cls(
                time=datetime.fromisoformat(fields["time"]),
                group=fields["group"],
                stream=fields["stream"],
                task_id=fields["task_id"],
                instance=int(fields["instance"]),
                message=fields["message"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"should be a line of the log store: {error}") from None
