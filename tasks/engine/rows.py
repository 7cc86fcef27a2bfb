"""The rows of one CSV item: sent one by one or joined in requests, and answered in row order."""

from __future__ import annotations

import asyncio
from codecs import BOM_UTF8
from collections import deque
from collections.abc import Sequence
from itertools import islice

from tasks.domain.csv_rows import RowBatch, RowReader, csv_text
from tasks.domain.errors import AnswerError, ContentError, RowError
from tasks.domain.evidence import alike
from tasks.domain.header import TableMapping
from tasks.domain.item import Item
from tasks.domain.joining import Order, ServerId, Unproved
from tasks.domain.mapping import Mapping
from tasks.domain.paths import redact_source
from tasks.domain.request import row_body
from tasks.domain.rows_per_request import AutoRows
from tasks.domain.service import BatchService
from tasks.domain.settings import Settings
from tasks.engine.answer_lines import Answers
from tasks.engine.breath import Breath
from tasks.engine.row_answers import answer_line, split
from tasks.engine.sent import Sent
from tasks.engine.session import Session

SINGLES_AT_ONCE = 16
"""Most rows of one request that are sent alone concurrently."""
ROWS_READ = 64
"""Least number of rows that are read and converted at once; fewer if they are long."""
LONG = 1 << 18
"""About how many characters of rows are read at once."""
MOST_EARLY = 100_000
"""Reading pauses when more lines than this wait for the line of an earlier row."""
MOST_DOUBLINGS = 10
JOINED_TRIES = 3
"""Most times that a file's rows are sent joined: again if the server is gone before its answers are covered."""

Ready = Sequence[tuple[int, str]]
"""Row numbers, each with the row's part of a request."""


def rows_of_a_request(service: BatchService, mapping: Mapping, auto: AutoRows) -> int:
    """Number of rows per request, as long as the model handles joined rows."""
    if not mapping.takes_many_rows:
        return 1
    return auto.size if service.rows_per_request == "auto" else min(service.rows_per_request, auto.most)


async def read_rows(table: TableMapping, data: bytes, settings: Settings) -> RowReader:
    """The rows of a CSV file, counted.

    Raises ContentError if it is not valid CSV, has characters that ``settings`` forbid, or has no rows.
    """
    text = csv_text(data, chinese=settings.chinese == "allow")
    rows = RowReader(text, header=table.header, needed=table.by_place.columns)
    breath = Breath()
    for _ in rows.scan():
        await breath()
    if not rows.count:
        raise ContentError("The CSV file has no rows.")
    return rows


async def answer_rows(session: Session, table: TableMapping, item: Item, data: bytes, sent: Sent) -> Answers:
    """The answers to all rows of a CSV file. Raises ContentError before its first row is sent if it is not valid CSV.

    Joined rows are sent again, alone, if their answers turn out to be possibly wrong (see :mod:`tasks.domain.joining`).
    """
    rows = await read_rows(table, data, session.settings)
    mapping, notes = table.of(rows.names())
    for note in notes:
        sent.tally.note(f"CSV header: {note}")
    for tries in range(1, JOINED_TRIES + 2):
        work = _Rows(session, mapping, item, rows, sent, joins=tries <= JOINED_TRIES and not session.ending.stopped)
        await work.all()
        if await work.covered():
            break
        rows.rewind()
    return work.answers


class _Rows:
    """Sends the rows of one item: as many concurrent requests as the instances take, and some that wait."""

    def __init__(
        self, session: Session, mapping: Mapping, item: Item, rows: RowReader, sent: Sent, *, joins: bool
    ) -> None:
        self._session = session
        self._joined = session.joined
        self._mapping = mapping
        self._item = item
        self._rows = rows
        self._joins = joins
        self._sent = sent
        self.answers = Answers()
        self._ready: deque[tuple[int, str]] = deque()
        self._left = rows.count
        """Rows that are not read yet."""
        self._read_at_once = max(1, min(ROWS_READ, LONG * rows.count // max(1, rows.size)))
        self._in_use = False
        """Whether lines from joined answers have been added."""
        self._unproved: Unproved = {}
        self._sample: tuple[Ready, list[bytes]] | None = None
        self._breath = Breath()
        self._working = self._most = 0
        self._group: asyncio.TaskGroup | None = None

    async def all(self) -> None:
        """Send the rows; returns when each has its line, or all have to be sent again."""
        self._joined.began()
        self._session.watch.when_probing.add(self._fill_more)
        try:
            async with asyncio.TaskGroup() as self._group:
                self._fill()
        finally:
            self._session.watch.when_probing.discard(self._fill_more)
            self._joined.ended()

    async def covered(self) -> bool:
        """Wait until no answer is in doubt; False if the rows have to be sent again."""
        return not self._in_use or await self._joined.covered(self._unproved, self._last_check)

    @property
    def _in_doubt(self) -> bool:
        """Whether lines from joined answers have been added, and joined answers are no longer trusted."""
        return self._in_use and bool(self._joined.joining.refused)

    def _fill_more(self) -> None:
        if self._working:  # else sending has not begun, or has ended
            self._fill()

    @property
    def _at_once(self) -> int:
        """Most requests in flight or waiting; the extra ones double with each probe that a healthy server refuses."""
        group = self._session.group
        probes = group.outages.probes
        return 2 * group.limit + ((1 << min(MOST_DOUBLINGS, probes)) - 1 if probes else 0)

    def _fill(self) -> None:
        """Start only as many workers as are useful, so that later rows profit from what they learn."""
        assert self._group is not None
        while self._working < (most := self._at_once) and (self._ready or self._left) and not self._in_doubt:
            self._working += 1
            self._group.create_task(self._work())
            if not self._ready:  # it reads first
                break
        self._most = most

    async def _work(self) -> None:
        try:
            while (taken := await self._take()) is not None:
                await self._send(*taken)
                self._fill()
                if self._working > self._most:
                    return
        finally:
            self._working -= 1

    async def _take(self) -> tuple[Order, Ready] | None:
        """The next rows and how to send them; None if no rows are left."""
        while not self._in_doubt:
            wanted = 1
            if self._joins:
                wanted = rows_of_a_request(self._session.run.service, self._mapping, self._joined.auto)
            await self._read(wanted)
            if not self._ready:
                return None
            left = len(self._ready) + (self._left if len(self._ready) >= wanted else 0)
            order = self._joined.joining.order(wanted, left)
            if order is None:
                await self._joined.changed()
                continue
            taken = [*islice(self._ready, order.rows)]
            for _ in taken:
                self._ready.popleft()
            self._fill()
            return order, taken
        return None

    async def _read(self, wanted: int) -> None:
        """Make that many rows ready, or all that are left. Rows that cannot be converted into a request fail here."""
        while len(self._ready) < wanted and self._left:
            if self.answers.waiting > MOST_EARLY:
                if self._ready:  # the row that the lines wait for may be among these
                    return
                await self.answers.moved()
                continue
            batch = self._rows.take(max(self._read_at_once, min(wanted, 16 * self._read_at_once)))
            if batch is None:
                self._left = 0
                break
            self._left -= len(batch.cells)
            self._convert(batch)
            await self._breath()

    def _convert(self, batch: RowBatch) -> None:
        if not batch.faults and (texts := self._mapping.row_texts(batch.cells)) is not None:
            self._ready.extend(enumerate(texts, batch.first))
            return
        failed: list[tuple[int, str]] = []
        for at, (cells, line) in enumerate(zip(batch.cells, batch.lines, strict=True)):
            number = batch.first + at
            try:
                if (fault := batch.faults.get(at)) is not None:
                    raise self._mapping.row_fault(fault, line)
                self._ready.append((number, self._mapping.row_text(cells, line)))
            except RowError as error:
                failed.append((number, str(error)))
        self.answers.fail_all(failed)

    async def _answer(self, text: str, *, urgent: bool = False) -> bytes:
        """One answer as one line. Raises AnswerError."""
        body = row_body(self._mapping.request([text]))
        answer = (await self._session.sender.send(body, self._sent, urgent=urgent)).data.removeprefix(BOM_UTF8)
        return answer_line(answer, self._session.masker)

    async def _single(self, row: int, text: str, *, urgent: bool = False) -> bytes | None:
        """Send a row alone and add its line; its answer, None if it failed."""
        try:
            answer = await self._answer(text, urgent=urgent)
        except AnswerError as error:
            self.answers.fail_all([(row, str(error))])
            return None
        self.answers.add(row, answer)
        return answer

    async def _each(self, ready: Ready, *, urgent: bool = False) -> list[bytes | None]:
        """Send rows one by one; their answers, None for each that failed."""
        if len(ready) == 1:
            return [await self._single(*ready[0], urgent=urgent)]
        answers: list[bytes | None] = [None] * len(ready)
        supply = iter(enumerate(ready))

        async def some() -> None:
            for at, (row, text) in supply:
                answers[at] = await self._single(row, text, urgent=urgent)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(SINGLES_AT_ONCE, len(ready))):
                group.create_task(some())
        return answers

    async def _send(self, order: Order, ready: Ready) -> None:
        """Send rows in one request, and some also alone; all rows alone if joining is refused or the request fails."""
        if order.rows == 1:
            await self._single(*ready[0])
            return
        joining = self._joined.joining
        try:
            found = await self._parts(ready)
            if joining.refused or found is None:
                singles = await self._each(ready)
                if found is None and not joining.refused and None not in singles:
                    self._joined.auto.too_many(len(ready))
                return
            await self._check(order, ready, *found)
        finally:
            joining.not_answered(order)
            self._joined.change()

    async def _check(self, order: Order, ready: Ready, parts: list[bytes], server: ServerId) -> None:
        """Add the lines of joined rows; those also sent alone get the lines of their single answers."""
        joining, evidence = self._joined.joining, self._joined.evidence
        moment = joining.answered(order)
        suspected: tuple[int, ...] = ()
        if len(order.alone) < order.rows:
            suspected = evidence.suspects([text for _, text in ready], parts)
        alone = sorted({*order.alone, *suspected})
        rows = [row for row, _ in ready]
        if len(alone) < len(ready):
            self._in_use = True
            others = [at for at in range(len(ready)) if at not in {*alone}] if alone else range(len(ready))
            self.answers.add_all([rows[at] for at in others], [parts[at] for at in others])
            if not alone:
                self._doubt(ready, parts, server, moment)
                return
        # Urgent: the sooner a request size is known to work, the sooner all rows are sent in that size.
        singles = await self._each([ready[at] for at in alone], urgent=True)
        for at, single in zip(alone, singles, strict=True):
            if single is None and self._session.ending.stopped:
                self._doubt(ready, parts, server, moment)
                return
            if single is None or not alike(single, parts[at]):
                self._refuse(f"{self._named(rows[at])} had another answer among {len(ready)} rows than alone")
                return
            evidence.learn(ready[at][1], single)
        if suspected:
            evidence.false_alarm()
        if order.alone:
            joining.matched(order, server, len({*singles}))
        else:
            self._doubt(ready, parts, server, moment)

    def _doubt(self, ready: Ready, parts: list[bytes], server: ServerId, moment: int) -> None:
        """Note that a joined answer has to be covered by a later check."""
        self._unproved[server] = moment
        self._sample = (ready, parts)

    async def _last_check(self) -> bool:
        """Send some joined rows again, and one of them alone, to check that the server still answers correctly."""
        assert self._sample is not None
        joining = self._joined.joining
        ready, before = self._sample
        order = joining.last_check(len(ready))
        (at,) = order.alone
        try:
            found = await self._parts(ready)
            single = await self._answer(ready[at][1])
        except AnswerError:
            return False
        if found is None:
            return False
        parts, server = found
        again = next((place for place in range(len(ready)) if not alike(before[place], parts[place])), None)
        if again is not None or not alike(single, parts[at]):
            row = ready[at if again is None else again][0]
            self._refuse(f"{self._named(row)} had another answer when it was sent again")
            return False
        joining.matched(order, server, 2)
        self._joined.change()
        return joining.covers(self._unproved)

    def _named(self, row: int) -> str:
        return f"row {row} of {redact_source(self._item.source)}"

    def _refuse(self, why: str) -> None:
        session = self._session
        if self._joined.joining.refused:
            return
        self._joined.joining.refuse(why)
        who = "" if session.number is None else f" by instance {session.number} (each instance decides for itself)"
        self._sent.tally.note(
            f"rows_per_request = {session.run.service.rows_per_request} was given up{who}: {why}. From then on each "
            "row was sent alone, and those of unfinished files again"
        )
        self._joined.change()

    async def _parts(self, ready: Ready) -> tuple[list[bytes], ServerId] | None:
        """The answers to rows in one request, and the server that gave them.

        None if the request failed or its answer does not have one element per row.
        """
        joined = self._joined
        body = row_body(self._mapping.request([text for _, text in ready]))
        try:
            answered = await self._session.sender.send(body, self._sent)
        except AnswerError:
            return None
        joined.auto.answered(len(ready), body.size, answered.seconds, answered.in_flight)
        answer = answered.data.removeprefix(BOM_UTF8)
        parts = split(answer, len(ready), joined.array_path)
        if parts is None and joined.array_path is not None:
            parts = split(answer, len(ready))
        if parts is None:
            first = self._named(ready[0][0])
            self._refuse(f"a request of {len(ready)} rows from {first} on had no answer with one element for each row")
            return None
        return parts, answered.server
