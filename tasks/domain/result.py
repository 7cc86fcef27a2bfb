"""The outcomes of items, and tallies of many outcomes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from tasks.domain.paths import redact_source

_DIGITS = re.compile(r"(?<!HTTP )\b\d+\b")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
CAUSES_KEPT = 200
CAUSES_SHOWN = 10
CAUSE_SHOWN = 300
LOOKED_AT = 2_000
NOT_PROCESSED = "Not processed: "
"""Beginning of the message of an item that was never sent; the reason follows."""
STOPPED_BEFORE = "The run was stopped before it was processed."
"""The same for a run that its user stopped."""
REASON_SHOWN = 500
NOTES_KEPT = 20
_BUCKET = math.log(1.05)
"""Latencies are counted in buckets of 5 %."""


class Outcome(NamedTuple):
    """The outcome of one item. ``message`` is empty if it succeeded; ``written``: it has a result file."""

    number: int
    source: str
    result_name: str
    message: str
    written: bool
    rows: int = 0
    failed_rows: int = 0
    bytes_read: int = 0
    bytes_written: int = 0
    final: bool = True
    """False if the item failed only because the run was being stopped: the next try of the run sends it again."""

    @property
    def not_processed(self) -> bool:
        """Whether the run ended before the item was sent."""
        return not self.final and self.message.startswith((NOT_PROCESSED, STOPPED_BEFORE))


class Tally:
    """Counts of many outcomes and requests; tallies of shards add up to that of the run."""

    def __init__(self) -> None:
        self.successful = 0
        self.failed = 0
        self.not_processed = 0
        """Of those that failed: items that were never sent."""
        self.rows = 0
        self.failed_rows = 0
        self.bytes_read = 0
        self.bytes_written = 0
        self.requests = 0
        self.retries = 0
        self.latencies: Counter[int] = Counter()
        self.causes: Counter[str] = Counter()
        self.examples: dict[str, tuple[str, str]] = {}
        """For each cause one complete message, and its item."""
        self.notes: Counter[str] = Counter()
        """Notes for the run's user on how requests were sent, and how often each was made."""

    def note(self, text: str) -> None:
        """Keep a note for the run's user."""
        if text in self.notes or len(self.notes) < NOTES_KEPT:
            self.notes[text] += 1

    def add(self, outcome: Outcome) -> None:
        """Count one item."""
        if outcome.message:
            self.failed += 1
            self.not_processed += outcome.not_processed
            cause = cause_of(outcome.message)
            if cause in self.causes or len(self.causes) < CAUSES_KEPT:
                self.causes[cause] += 1
                if cause not in self.examples:
                    self.examples[cause] = outcome.message[:LOOKED_AT], redact_source(outcome.source)[:LOOKED_AT]
        else:
            self.successful += 1
        self.rows += outcome.rows
        self.failed_rows += outcome.failed_rows
        self.bytes_read += outcome.bytes_read
        self.bytes_written += outcome.bytes_written

    def request(self, seconds: float) -> None:
        """Count one request that was answered after ``seconds``."""
        self.requests += 1
        self.latencies[math.floor(math.log(max(seconds, 1e-6)) / _BUCKET)] += 1

    def merge(self, others: Iterable[Tally]) -> Tally:
        """Add other tallies to this one."""
        for other in others:
            for name in _COUNTS:
                setattr(self, name, getattr(self, name) + getattr(other, name))
            self.latencies += other.latencies
            self.causes += other.causes
            self.examples = {**other.examples, **self.examples}
            self.notes += other.notes
            for counted, kept in ((self.causes, CAUSES_KEPT), (self.notes, NOTES_KEPT)):
                if len(counted) > 2 * kept:  # they differ from shard to shard
                    frequent = counted.most_common(kept)
                    counted.clear()
                    counted.update(dict(frequent))
        if len(self.examples) > len(self.causes):
            self.examples = {cause: one for cause, one in self.examples.items() if cause in self.causes}
        return self

    def requests_only(self) -> Tally:
        """A copy with the counts of requests and the notes, without those of items."""
        only = Tally()
        only.requests, only.retries, only.latencies = self.requests, self.retries, self.latencies.copy()
        only.notes = self.notes.copy()
        return only

    def percentile_ms(self, share: float) -> float | None:
        """Latency in milliseconds below which ``share`` of the requests were answered, accurate to 5 %."""
        total = sum(self.latencies.values())
        seen = 0
        for bucket in sorted(self.latencies):
            seen += self.latencies[bucket]
            if seen >= share * total:
                return round(math.exp((bucket + 0.5) * _BUCKET) * 1000, 3)
        return None

    def top_causes(self) -> list[dict[str, Any]]:
        """The most frequent causes of failure with their counts, each with the message of one item, and that item."""
        found = []
        for cause, count in self.causes.most_common(CAUSES_SHOWN):
            message, item = self.examples.get(cause, (cause, ""))
            shown = message if len(message) <= CAUSE_SHOWN else f"{message[:CAUSE_SHOWN]}..."
            found.append({"cause": shown, "items": count, "item": item})
        return found

    def to_json(self) -> dict[str, Any]:
        """The tally as plain JSON values; :meth:`from_json` reads it."""
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "latencies": {str(bucket): count for bucket, count in self.latencies.items()},
            "causes": dict(self.causes),
            "examples": {cause: list(one) for cause, one in self.examples.items()},
            "notes": dict(self.notes),
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Tally:
        """The tally that :meth:`to_json` wrote."""
        tally = cls()
        for name in _COUNTS:
            setattr(tally, name, document.get(name, 0))
        tally.latencies = Counter({int(bucket): count for bucket, count in document["latencies"].items()})
        tally.causes = Counter(document["causes"])
        tally.examples = {cause: (str(one[0]), str(one[1])) for cause, one in document.get("examples", {}).items()}
        tally.notes = Counter(document.get("notes", {}))
        return tally


_COUNTS = (
    *("successful", "failed", "not_processed", "rows", "failed_rows"),
    *("bytes_read", "bytes_written", "requests", "retries"),
)


def not_processed(reason: str) -> str:
    """The message of an item that was not sent for this reason; only the first and last of several lines are kept."""
    lines = [line.strip() for line in reason.splitlines() if line.strip()] or ["no reason is known"]
    detail = lines[0] if len(lines) == 1 else f"{lines[0]} {lines[-1]}"
    return NOT_PROCESSED + (detail if len(detail) <= REASON_SHOWN else f"{detail[:REASON_SHOWN]}...")


def cause_of(message: str) -> str:
    """A failure's message without the parts that differ from item to item: numbers and quoted values."""
    cause = _DIGITS.sub("N", _QUOTED.sub('"..."', message[:LOOKED_AT]))
    return cause if len(cause) <= CAUSE_SHOWN else f"{cause[:CAUSE_SHOWN]}..."


def rows_message(rows: int, failed_rows: int, first: str) -> str:
    """Message of an item with failed rows: ``3 of 150 rows failed, first: row 17: ...``."""
    return f"{failed_rows} of {rows} {'row' if rows == 1 else 'rows'} failed, first: {first}"
