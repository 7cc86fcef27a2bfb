"""Which items of an input a run would refuse, counted by reason before it runs; and which of many are looked at."""

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
"""What is wrong with an item, as JSON and as text name it; in the order of the text."""
FIRST = 16
"""Of many items the first are looked at in any case: they are what their user knows best."""
_SIGNED_AT = "%Y%m%dT%H%M%SZ"
_LETTER = re.compile(r"[^\W\d_]")


class Refusal(NamedTuple):
    """Why an item would be refused: one of :data:`REASONS`, and the message that it would get."""

    reason: str
    message: str


class Count(NamedTuple):
    """How many items would be refused for a reason, and one of them with its message.

    ``of`` is how many are known in this respect: all, or those that were ``looked_at``.
    """

    reason: str
    items: int
    of: int
    looked_at: bool
    message: str
    item: str

    @property
    def share(self) -> str:
        """How many of how many."""
        return f"{self.items:,} of {self.of:,} item{'' if self.of == 1 else 's'}{' looked at' * self.looked_at}"

    @property
    def text(self) -> str:
        """How many of how many, and why, without a full stop."""
        return f"{self.share}: {self.message.rstrip('.')} ({self.item})"


class Counts:
    """Counts items by why they would be refused."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, str, str]] = {}

    def add(self, refusal: Refusal, source: str) -> None:
        """Count an item."""
        count, message, first = self._found.get(refusal.reason, (0, refusal.message, source))
        self._found[refusal.reason] = (count + 1, message, first)

    @property
    def items(self) -> int:
        """All of them."""
        return sum(count for count, _, _ in self._found.values())

    def counts(self, of: int, *, looked_at: bool = False) -> list[Count]:
        """By reason, of so many items."""
        found = [(reason, *self._found[reason]) for reason in REASONS if reason in self._found]
        return [
            Count(reason, items, of, looked_at, redact(message), redact_source(source))
            for reason, items, message, source in found
        ]


class Sample:
    """Some items of very many: all while they are few, else the first ones and others that chance picks."""

    def __init__(self, most: int, first: int = FIRST) -> None:
        self._most = most
        self._first = first
        self._chance = Random(0)  # the same call looks at the same items
        self._kept: list[Item] = []
        self.seen = 0

    def add(self, item: Item) -> None:
        """See an item."""
        self.seen += 1
        if len(self._kept) < self._most:
            self._kept.append(item)
        elif (place := self._chance.randrange(self.seen - self._first)) < self._most - self._first:
            self._kept[self._first + place] = item

    @property
    def items(self) -> Sequence[Item]:
        """Those that were picked, in input order."""
        return sorted(self._kept)


def planned_refusal(message: str) -> Refusal:
    """Why an item is refused that is FAILED as it is planned, by its message."""
    if message.startswith("Line "):
        return Refusal("line", message)
    return Refusal("folder" if "t is a folder" in message else "address", message)


def period_refusal(link: str, now: datetime) -> str:
    """Why a share link cannot be fetched any more, by what it says of itself; empty if it can, or says nothing."""
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
    """Whether the first line of a table, which is no row, looks like the names of its columns.

    Each cell has a letter; and either it has some of ``names``, those of the request's fields, or the lines after it
    are rows, or nothing, and it has neither the same cell twice nor one that stands for a missing value.
    """
    if not all(_LETTER.search(cell) for cell in cells):
        return False
    plain = {_plain(cell) for cell in cells}
    if any(_plain(name) in plain for name in names):
        return True
    return others_are_rows and len(plain) == len(cells) and not plain & _MISSING


_MISSING = {"na", "nan", "null", "none", "nil", "missing", "unknown", "inf"}
"""What programs write into cells without a value."""


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()
