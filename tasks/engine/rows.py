"""The rows of one CSV item: sent one by one, or several in one request, and answered in row order."""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from codecs import BOM_UTF8
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import orjson

from tasks.clients.tables import Row, csv_rows, csv_text
from tasks.domain.answer import compact, error_line, shown, split
from tasks.domain.errors import AnswerError, ContentError, RowError
from tasks.domain.mapping import Mapping
from tasks.domain.request import row_body
from tasks.domain.result import Tally
from tasks.domain.service import BatchService
from tasks.engine.session import Session

AUTO_ROWS = 64
TRIED_ROWS = 4
"""Rows that are sent both ways before answers to joined rows are trusted."""
ALIKE = 1e-4
"""How far numbers of a joined answer may be, relatively, from those of single answers: models round differently."""

Ready = Sequence[tuple[Row, bytes]]


def rows_of_a_request(service: BatchService, mapping: Mapping) -> int:
    """Rows that go into one request, as long as the model shows that it takes them."""
    if not mapping.takes_many_rows:
        return 1
    return AUTO_ROWS if service.rows_per_request == "auto" else service.rows_per_request


async def answer_rows(session: Session, mapping: Mapping, data: bytes, tally: Tally) -> Answers:
    """The answers to all rows of a CSV file. Raises ContentError before its first row is sent if it is broken."""
    text = csv_text(data)
    header = session.run.service.csv_header == "present"
    rows = sum(1 for _ in csv_rows(text, header=header))
    if not rows:
        raise ContentError("The CSV file has no rows.")
    work = _Rows(session, mapping, csv_rows(text, header=header), tally)
    await _together([work.run() for _ in range(min(-(-rows // work.size), session.group.capacity))])
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

    def add(self, row: Row, line: bytes) -> None:
        """Take the answer to a row."""
        self._early[row.number] = line
        while (ready := self._early.pop(self._next, None)) is not None:
            self._text += ready
            self._text += b"\n"
            self._next += 1

    def fail(self, row: Row, message: str) -> None:
        """Take a row's failure."""
        self.failed += 1
        if self._first_failure is None or row.number < self._first_failure[0]:
            self._first_failure = (row.number, message)
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
    """Sends the rows of one item; several :meth:`run` at once share the supply."""

    def __init__(self, session: Session, mapping: Mapping, supply: Iterator[Row], tally: Tally) -> None:
        self._session = session
        self._mapping = mapping
        self._supply = supply
        self._tally = tally
        self.answers = Answers()

    @property
    def size(self) -> int:
        """Rows that go into one request."""
        return 1 if self._session.one_row_only else rows_of_a_request(self._session.run.service, self._mapping)

    async def run(self) -> None:
        """Take rows and send them, until there are no more."""
        while taken := list(itertools.islice(self._supply, self.size)):
            ready: list[tuple[Row, bytes]] = []
            for row in taken:
                try:
                    ready.append((row, self._mapping.body(row.cells, row.line)))
                except RowError as error:
                    self.answers.fail(row, str(error))
            await self._send(ready)

    async def _single(self, row: Row, body: bytes) -> None:
        try:
            self.answers.add(row, await self._answer(body))
        except AnswerError as error:
            self.answers.fail(row, str(error))

    async def _answer(self, body: bytes) -> bytes:
        """One answer as one line. Raises AnswerError."""
        answer = (await self._session.sender.send(row_body(body), self._tally)).removeprefix(BOM_UTF8)
        if error := _json_error(answer):
            if not answer.strip():
                raise AnswerError("The model's answer is empty; JSON was expected")
            raise AnswerError(f"The model's answer is not JSON ({error}): {shown(answer)}")
        return compact(answer)

    async def _send(self, ready: Ready) -> None:
        """Send rows in one request, if the model takes several; each for itself if it does not, or did not now."""
        session = self._session
        if len(ready) > 1 and not session.one_row_only:
            async with session.joining:  # the others wait until it is known
                if not session.joined_is_right and not session.one_row_only:
                    await self._try_joined(ready[:TRIED_ROWS])
                    ready = ready[TRIED_ROWS:]
            if len(ready) > 1 and not session.one_row_only and (parts := await self._parts(ready)) is not None:
                for (row, _), part in zip(ready, parts, strict=True):
                    self.answers.add(row, part)
                return
        for row, body in ready:
            await self._single(row, body)

    async def _parts(self, ready: Ready) -> list[bytes] | None:
        body = self._mapping.join_bodies([body for _, body in ready])
        try:
            answer = (await self._session.sender.send(row_body(body), self._tally)).removeprefix(BOM_UTF8)
        except AnswerError:
            return None
        parts = None if _json_error(answer) else split(answer, len(ready))
        if parts is None:
            self._session.one_row_only = True
        return parts

    async def _try_joined(self, ready: Ready) -> None:
        """Send some rows both ways: as many answers as rows is not enough to trust that each is a row's own."""
        session = self._session
        parts = await self._parts(ready)
        session.one_row_only = parts is None
        for number, (row, body) in enumerate(ready):
            try:
                single = await self._answer(body)
            except AnswerError as error:
                self.answers.fail(row, str(error))
                session.one_row_only = True
                continue
            self.answers.add(row, single)
            if parts is None or not _alike(_loaded(single), _loaded(parts[number])):
                session.one_row_only = True
        session.joined_is_right = not session.one_row_only


def _loaded(answer: bytes) -> Any:
    return json.loads(answer)


def _alike(one: Any, other: Any) -> bool:
    """Whether two answers say the same, but for the rounding of fractions; a whole number may be a row's name."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ALIKE, abs_tol=ALIKE / 100)
    return type(one) is type(other) and bool(one == other)


def _json_error(answer: bytes) -> str:
    """Why an answer is not JSON, or an empty text."""
    try:
        orjson.loads(answer)
        return ""
    except orjson.JSONDecodeError as error:
        said = str(error)
    try:  # orjson refuses numbers that no double can hold, which JSON allows
        json.loads(answer.decode(), parse_constant=_no_number, parse_int=str, parse_float=str)
        return ""
    except (ValueError, RecursionError):
        return said


def _no_number(name: str) -> None:
    raise ValueError(name)


async def _together(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    if len(work) == 1:
        await work[0]
        return
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
