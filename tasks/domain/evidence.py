"""Evidence that responses to joined rows are wrong, from the responses to rows sent alone.

It costs no request. A row whose single response is known occurs again in many tables; equal rows of one request have
equal responses; and a model that copies a value of the row (a number, a name) into its response shows to which row it
belongs. This proves nothing either way: it selects the rows to be sent alone next.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

ALIKE = 1e-4
"""Relative tolerance between numbers of joined and single responses: models round differently."""
KNOWN = 2048
KNOWN_BYTES = 1 << 21
"""Single responses that are kept, and the bytes of them and their rows."""
LEAVES = 64
"""Values of a row or a response that are examined."""
ENOUGH = 4
"""Rows that must all have had their value in their response."""
FALSE_ALARMS = 64
"""After this many rows were sent alone in vain, evidence is no longer examined."""

Path = tuple[str | int, ...]


class Evidence:
    """Learns from single responses; examines joined ones."""

    def __init__(self) -> None:
        self._known: dict[str, bytes] = {}
        self._bytes = 0
        self._echoes: set[tuple[Path, Path]] | None = None
        self._seen: dict[Path, set[str]] = {}
        self._learned = 0
        self._false_alarms = 0

    def learn(self, row: str, answer: bytes) -> None:
        """Learn from a row (JSON) and the response to it alone."""
        self._learned += 1
        if row not in self._known and len(self._known) < KNOWN and self._bytes < KNOWN_BYTES:
            self._bytes += len(row) + len(answer)
            self._known[row] = answer
        elif row in self._known:
            self._known[row] = answer
        if self._echoes is not None and not self._echoes:
            return
        values, answered = leaves(row), leaves(answer)
        pairs = {(at, of) for at, detail in answered.items() for of, value in values.items() if detail == value}
        self._echoes = pairs if self._echoes is None else self._echoes & pairs
        for _, of in self._echoes:
            self._seen.setdefault(of, set()).add(values[of])

    def false_alarm(self) -> None:
        """Count a suspected row whose response was its own."""
        self._false_alarms += 1

    def suspects(self, rows: Sequence[str], answers: Sequence[bytes]) -> tuple[int, ...]:
        """Positions of rows in a request that should be sent alone, judged by its responses; mostly empty."""
        if self._false_alarms >= FALSE_ALARMS:
            return ()
        places = {row: at for at, row in enumerate(rows)}
        if len(places) < len(rows):
            for at, row in enumerate(rows):
                other = places[row]
                if answers[at] != answers[other] and not alike(answers[at], answers[other]):
                    return at, other
        for row in self._known.keys() & places.keys():
            answer = answers[places[row]]
            if answer != self._known[row] and not alike(self._known[row], answer):
                return (places[row],)
        if self._learned >= ENOUGH and self._echoes:
            telling = [pair for pair in self._echoes if len(self._seen[pair[1]]) > 1]
            if telling:
                return self._not_echoed(telling, rows, answers)
        return ()

    @staticmethod
    def _not_echoed(pairs: list[tuple[Path, Path]], rows: Sequence[str], answers: Sequence[bytes]) -> tuple[int, ...]:
        for at, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            values, answered = leaves(row), leaves(answer)
            if any(answered.get(detail) != values.get(of) for detail, of in pairs):
                return (at,)
        return ()


def leaves(text: str | bytes) -> dict[Path, str]:
    """The first texts and numbers of a JSON value, as text, by their paths."""
    try:
        return dict(islice(_leaves(json.loads(text), ()), LEAVES))
    except (ValueError, RecursionError):  # a number of thousands of digits, a depth of thousands
        return {}


def _leaves(value: Any, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _leaves(child, (*path, name))
    elif isinstance(value, list):
        for at, child in enumerate(value):
            yield from _leaves(child, (*path, at))
    elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
        yield path, str(value)


def alike(one: bytes, other: bytes) -> bool:
    """Whether two responses (JSON) are equal except for the rounding of fractions."""
    try:
        return one == other or _alike(json.loads(one), json.loads(other))
    except (ValueError, RecursionError):  # a number of thousands of digits, a depth of thousands
        return False


def _alike(one: Any, other: Any) -> bool:
    # Whole numbers must be equal: one may identify a row.
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        close = math.isclose(one, other, rel_tol=ALIKE, abs_tol=ALIKE / 100)
        return close or (math.isnan(one) and math.isnan(other))
    return type(one) is type(other) and bool(one == other)
