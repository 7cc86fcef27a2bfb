"""The rows of one CSV item: sent one by one, or several in one request, and answered in row order."""

from __future__ import annotations

import asyncio
import json
import math
from codecs import BOM_UTF8
from collections.abc import Sequence
from typing import Any

import orjson

from tasks.domain.answer import compact, error_line, json_error, shown, split
from tasks.domain.csv_rows import RowBatch, RowReader, csv_text
from tasks.domain.errors import AnswerError, ContentError, RowError
from tasks.domain.mapping import Mapping
from tasks.domain.request import row_body
from tasks.domain.result import Tally
from tasks.domain.rows_per_request import AutoRows
from tasks.domain.service import BatchService
from tasks.engine.session import Session

TRIED_ROWS = 4
"""Rows that are sent both ways before answers to joined rows are trusted."""
ALIKE = 1e-4
"""How far numbers of a joined answer may be, relatively, from those of single answers: models round differently."""
SINGLES_AT_ONCE = 16
"""Rows of one failed joined request that are sent at once, each for itself."""

Ready = Sequence[tuple[int, str]]
"""Numbers of rows, and what each brings into a request."""


def rows_of_a_request(service: BatchService, mapping: Mapping, auto: AutoRows) -> int:
    """Rows that go into one request, as long as the model shows that it takes them."""
    if not mapping.takes_many_rows:
        return 1
    return auto.size if service.rows_per_request == "auto" else min(service.rows_per_request, auto.most)


async def answer_rows(session: Session, mapping: Mapping, data: bytes, tally: Tally) -> Answers:
    """The answers to all rows of a CSV file. Raises ContentError before its first row is sent if it is broken."""
    rows = RowReader(csv_text(data), header=session.run.service.csv_header == "present")
    if not rows.count():
        raise ContentError("The CSV file has no rows.")
    work = _Rows(session, mapping, rows, tally)
    await work.all()
    return work.answers


class Answers:
    """The answer lines of one CSV item, in row order, however they come in.

    What is in order already is kept as one piece of text, so that a line costs its own bytes only.
    """

    def __init__(self) -> None:
        self._text = bytearray()
        self._next = 1
        self._early: dict[int, bytes] = {}
        self._first_failure: tuple[int, str] | None = None
        self.failed = 0

    def add(self, row: int, line: bytes) -> None:
        """Take the answer to a row, by its number."""
        self._early[row] = line
        self._in_order()

    def add_all(self, rows: Sequence[int], lines: Sequence[bytes]) -> None:
        """Take the answers to some rows, in order."""
        if rows[0] == self._next and rows[-1] - rows[0] == len(rows) - 1:
            self._text += b"\n".join(lines)
            self._text += b"\n"
            self._next = rows[-1] + 1
        else:
            self._early.update(zip(rows, lines, strict=True))
        self._in_order()

    def _in_order(self) -> None:
        while (ready := self._early.pop(self._next, None)) is not None:
            self._text += ready
            self._text += b"\n"
            self._next += 1

    def fail(self, row: int, message: str) -> None:
        """Take a row's failure."""
        self.failed += 1
        if self._first_failure is None or row < self._first_failure[0]:
            self._first_failure = (row, message)
        self.add(row, error_line(message))

    @property
    def rows(self) -> int:
        """Rows that have their line."""
        return self._next - 1 + len(self._early)

    def first_failure(self) -> str:
        """The first failed row, in row order, and why."""
        assert self._first_failure is not None
        return f"row {self._first_failure[0]}: {self._first_failure[1]}"

    def result(self) -> bytes:
        """The result file."""
        return bytes(self._text)


class _Rows:
    """Sends the rows of one item, as many requests at once as the instances take, and some that wait."""

    def __init__(self, session: Session, mapping: Mapping, rows: RowReader, tally: Tally) -> None:
        self._session = session
        self._joined = session.joined
        self._mapping = mapping
        self._rows = rows
        self._tally = tally
        self.answers = Answers()
        self._working = 0
        self._group: asyncio.TaskGroup | None = None

    async def all(self) -> None:
        """Send the rows; returns when each has its line."""
        async with asyncio.TaskGroup() as self._group:
            self._fill()

    def _fill(self) -> None:
        """Start as many workers as there is use for: no more, so that what they learn counts for the next rows."""
        assert self._group is not None
        while self._working < 2 * self._session.group.limit and (taken := self._rows.take(self._size)):
            self._working += 1
            self._group.create_task(self._work(taken))

    @property
    def _size(self) -> int:
        """Rows that go into one request."""
        joined = self._joined
        return 1 if joined.refused else rows_of_a_request(self._session.run.service, self._mapping, joined.auto)

    async def _work(self, taken: RowBatch | None) -> None:
        try:
            while taken:
                await self._send(self._ready(taken))
                self._fill()
                taken = self._rows.take(self._size)
        finally:
            self._working -= 1

    def _ready(self, taken: RowBatch) -> Ready:
        """What the rows bring into requests; those that bring nothing have failed."""
        if len(taken.cells) > 1 and (texts := self._mapping.row_texts(taken.cells)) is not None:
            return [*enumerate(texts, taken.first)]
        ready: list[tuple[int, str]] = []
        for number, (cells, line) in enumerate(zip(taken.cells, taken.lines, strict=True), taken.first):
            try:
                ready.append((number, self._mapping.row_text(cells, line)))
            except RowError as error:
                self.answers.fail(number, str(error))
        return ready

    async def _single(self, row: int, text: str) -> bool:
        """Send a row for itself; whether it was answered."""
        try:
            self.answers.add(row, await self._answer(text))
        except AnswerError as error:
            self.answers.fail(row, str(error))
            return False
        return True

    async def _answer(self, text: str) -> bytes:
        """One answer as one line. Raises AnswerError."""
        body = row_body(self._mapping.request([text]))
        answer = (await self._session.sender.send(body, self._tally)).data.removeprefix(BOM_UTF8)
        if error := json_error(answer, orjson.loads):
            if not answer.strip():
                raise AnswerError("The model's answer is empty; JSON was expected")
            raise AnswerError(f"The model's answer is not JSON ({error}): {shown(answer)}")
        return compact(answer)

    async def _send(self, ready: Ready) -> None:
        """Send rows in one request, if the model takes several; each for itself if it does not, or did not now."""
        joined = self._joined
        if len(ready) > 1 and not joined.refused and not joined.trusted:
            async with joined.trying:
                if not joined.trusted and not joined.refused:
                    tried = sorted({at * (len(ready) - 1) // (TRIED_ROWS - 1) for at in range(TRIED_ROWS)})
                    await self._try_joined([ready[at] for at in tried])
                    ready = [one for at, one in enumerate(ready) if at not in tried]
        if len(ready) < 2 or not joined.trusted:
            await self._each(ready)
        elif (parts := await self._parts(ready)) is not None:
            self.answers.add_all([row for row, _ in ready], parts)
        elif await self._each(ready) and not joined.refused:
            joined.auto.too_many(len(ready))

    async def _each(self, ready: Ready) -> bool:
        """Send rows one by one; whether all of them were answered."""
        if len(ready) == 1:
            return await self._single(*ready[0])
        supply = iter(ready)
        good = True

        async def some() -> None:
            nonlocal good
            for row, text in supply:
                good = await self._single(row, text) and good

        async with asyncio.TaskGroup() as group:
            for _ in range(min(SINGLES_AT_ONCE, len(ready))):
                group.create_task(some())
        return good

    async def _parts(self, ready: Ready) -> list[bytes] | None:
        """The answers to rows in one request; None if it failed, or its answer is not one for each row."""
        joined = self._joined
        body = row_body(self._mapping.request([text for _, text in ready]))
        try:
            answered = await self._session.sender.send(body, self._tally)
        except AnswerError:
            return None
        joined.auto.answered(len(ready), body.size, answered.seconds, answered.in_flight)
        answer = answered.data.removeprefix(BOM_UTF8)
        parts = split(answer, len(ready), joined.array_path, orjson.loads)
        if parts is None and joined.array_path is not None:
            parts = split(answer, len(ready), None, orjson.loads)
        joined.refused = joined.refused or parts is None
        return parts

    async def _try_joined(self, ready: Ready) -> None:
        """Send some rows both ways: as many answers as rows is not enough to trust that each is a row's own."""
        parts = await self._parts(ready)
        alike = parts is not None
        answers = set()
        for number, (row, text) in enumerate(ready):
            try:
                single = await self._answer(text)
            except AnswerError as error:
                self.answers.fail(row, str(error))
                alike = False
                continue
            self.answers.add(row, single)
            answers.add(single)
            alike = alike and parts is not None and _alike(json.loads(single), json.loads(parts[number]))
        self._joined.tried(alike=alike, answers=len(answers))


def _alike(one: Any, other: Any) -> bool:
    """Whether two answers say the same, but for the rounding of fractions; a whole number may be a row's name."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ALIKE, abs_tol=ALIKE / 100)
    return type(one) is type(other) and bool(one == other)
