"""The items of an input that a run would refuse, counted by reason before it runs, and the sample that is examined."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from tasks.domain.item import Item
from tasks.domain.paths import redact, redact_source

REASONS = {
    "line": "unreadable line",
    "folder": "folder",
    "address": "address",
    "kind": "kind of file",
    "size": "size",
    "period": "share link out of its period",
    "missing": "not there",
    "reading": "cannot be read",
    "content": "content",
    "header": "first line",
    "rows": "rows",
}
"""Problems with an item: the name in JSON and that in text, in the order of the text."""
FIRST = 16
"""The first items of many are always examined: the user knows them best."""
_SIGNED_AT = "%Y%m%dT%H%M%SZ"
_LETTER = re.compile(r"[^\W\d_]")


class Refusal(NamedTuple):
    """Why an item would be refused: one of :data:`REASONS`, and the message that it would get."""

    reason: str
    message: str


class Count(NamedTuple):
    """How many items would be refused for a reason, and one of them with its message.

    ``of`` is the number of items checked for this reason: all, or those that were ``looked_at``.
    """

    reason: str
    items: int
    of: int
    looked_at: bool
    message: str
    item: str

    @property
    def share(self) -> str:
        """The count out of the total, as text."""
        return f"{self.items:,} of {self.of:,} item{'' if self.of == 1 else 's'}{' looked at' * self.looked_at}"

    @property
    def text(self) -> str:
        """The count out of the total and the reason, as text without a full stop."""
        return f"{self.share}: {self.message.rstrip('.')} ({self.item})"


class Counts:
    """Counts items by the reason why they would be refused."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str, str]] = {}

    def add(self, refusal: Refusal, source: str) -> None:
        """Count an item."""
        count, message, first = self._found.get(refusal.reason, (0, refusal.message, source))
        self._found[refusal.reason] = (count + 1, message, first)

    @property
    def items(self) -> int:
        """The number of all items counted."""
        return sum(count for count, _, _ in self._found.values())

    def counts(self, of: int, *, looked_at: bool = False) -> list[Count]:
        """The counts by reason, out of ``of`` items."""
        found = [(reason, *self._found[reason]) for reason in REASONS if reason in self._found]
        return [
            Count(reason, items, of, looked_at, redact(message), redact_source(source))
            for reason, items, message, source in found
        ]


class Sample:
    """A sample of very many items: all while they are few, otherwise the first ones and random others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._chance = Random(0)  # a fixed seed: the same call examines the same items
        self._kept: list[Item] = []
        self.seen = 0

    def add(self, item: Item) -> None:
        """Offer an item to the sample."""
        self.seen += 1
        if len(self._kept) < self._most:
            self._kept.append(item)
        elif (place := self._chance.randrange(self.seen - FIRST)) < self._most - FIRST:
            self._kept[FIRST + place] = item

    @property
    def items(self) -> Sequence[Item]:
        """The sampled items, in input order."""
        return sorted(self._kept)


def planned_refusal(message: str) -> Refusal:
    """The refusal of an item that is already FAILED in the plan, by its message."""
    if message.startswith("Line "):
        return Refusal("line", message)
    return Refusal("folder" if "t is a folder" in message else "address", message)


def period_refusal(link: str, now: datetime) -> str:
    """The message for an expired share link, by the period in its query; empty if it is valid or has no period."""
    query = parse_qs(urlsplit(link).query)
    until: datetime | None = None
    try:
        if "Expires" in query:
            until = datetime.fromtimestamp(int(query["Expires"][0]), UTC)
        for maker in ("X-Amz", "X-Obs", "X-Goog"):
            if f"{maker}-Expires" in query and f"{maker}-Date" in query:
                began = datetime.strptime(query[f"{maker}-Date"][0], _SIGNED_AT).replace(tzinfo=UTC)
                until = began + timedelta(seconds=int(query[f"{maker}-Expires"][0]))
    except (ValueError, OverflowError, OSError):
        return ""
    if until is None or until > now:
        return ""
    return f"Download file failed. The share link has expired: it was valid until {until:%Y-%m-%d %H:%M:%S} UTC."


def looks_like_names(cells: Sequence[str], names: Iterable[str], others_are_rows: bool) -> bool:
    """Whether the first line of a table, which is not a valid row, looks like the names of its columns.

    Every cell must have a letter. In addition, either one of ``names`` (of the request's fields) is in the line, or the
    lines after it, if any, are rows, and no cell occurs twice or marks a missing value.
    """
    if not all(_LETTER.search(cell) for cell in cells):
        return False
    plain = {_plain(cell) for cell in cells}
    if any(_plain(name) in plain for name in names):
        return True
    return others_are_rows and len(plain) == len(cells) and not plain & _MISSING


_MISSING = {"na", "nan", "null", "none", "nil", "missing", "unknown", "inf"}
"""Texts that programs write into cells without a value."""


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()
