"""One item from its bytes to its outcome: a file is one request, a CSV file one request a row (or some rows)."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence

import orjson

from tasks.clients.failures import ObjectError, TooLarge
from tasks.clients.tables import Row, csv_rows, csv_text
from tasks.domain.answer import compact, error_line, shown, split
from tasks.domain.errors import AnswerError, ContentError, DownloadError, ItemError, RowError, UploadError
from tasks.domain.item import Item
from tasks.domain.mapping import Mapping
from tasks.domain.paths import Address, parse_address
from tasks.domain.request import row_body
from tasks.domain.result import Outcome, Tally, rows_message
from tasks.engine.session import Session

AUTO_ROWS = 64
UNKNOWN_BYTES = 1 << 20
CSV_COST = 6
"""A CSV item's answers, held until it is complete, take several times its own bytes."""
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")


async def process(session: Session, item: Item, tally: Tally) -> Outcome:
    """Read, send and write one item. Never raises for what is wrong with the item: that is its outcome."""
    if item.error:
        return Outcome(item.number, item.source, item.result_name, item.error, False)
    cost = item.size if item.size >= 0 else UNKNOWN_BYTES
    held = await session.bytes.take(cost if session.mapping is None else cost * CSV_COST)
    try:
        if session.mapping is None:
            return await _file(session, item, tally)
        return await _table(session, session.mapping, item, tally)
    except ItemError as error:
        return Outcome(item.number, item.source, item.result_name, str(error), False)
    finally:
        session.bytes.give(held)


def size_error(name: str, size: int, limit: int) -> str:
    """Why a file is too large, or an empty text: an image must be smaller than the limit, others not larger."""
    image = name.lower().endswith(IMAGES)
    if size < limit or (size == limit and not image):
        return ""
    rule = "smaller than" if image else "not larger than"
    return f"The file has {size} bytes; it should be {rule} {limit} bytes ({limit / (1 << 20):g} MiB)."


async def _read(session: Session, item: Item, address: Address) -> bytes:
    limit = session.settings.max_item_bytes
    name = address.name
    if wrong := size_error(name, item.size, limit):
        raise ContentError(wrong)
    try:
        if address.scheme == "local":
            data = await session.storage.read(address, limit, item.size)
        else:
            async with session.remote:
                data = await session.storage.read(address, limit, item.size)
    except TooLarge as larger:
        raise ContentError(size_error(name, larger.size, limit)) from None
    except ObjectError as failed:
        raise DownloadError(failed.cause) from None
    if wrong := size_error(name, len(data), limit):
        raise ContentError(wrong)
    return data


async def _write(session: Session, item: Item, data: bytes) -> None:
    name = f"{session.run.names.result_folder}/{item.result_name}"
    try:
        if session.output.root.scheme == "local":
            await session.output.write(name, data)
        else:
            async with session.remote:
                await session.output.write(name, data)
    except ObjectError as error:
        raise UploadError(error.cause) from None


async def _file(session: Session, item: Item, tally: Tally) -> Outcome:
    assert session.form is not None
    address = parse_address(item.address)
    data = await _read(session, item, address)
    answer = await session.sender.send(session.form.body(address.name, data), tally)
    await _write(session, item, answer)
    return Outcome(
        item.number, item.source, item.result_name, "", True, bytes_read=len(data), bytes_written=len(answer)
    )


async def _table(session: Session, mapping: Mapping, item: Item, tally: Tally) -> Outcome:
    address = parse_address(item.address)
    if not address.name.lower().endswith(".csv"):
        raise ContentError("A .csv file was expected, because the model's request is JSON: one request a row.")
    data = await _read(session, item, address)
    answers = _Answers()
    text = csv_text(data)
    # The whole file is looked at first: a broken one is refused before its first row is sent.
    rows = sum(1 for _ in csv_rows(text, header=session.run.service.csv_header == "present"))
    if not rows:
        raise ContentError("The CSV file has no rows.")
    supply = csv_rows(text, header=session.run.service.csv_header == "present")
    size = _rows_per_request(session, mapping)
    workers = min(-(-rows // size), session.group.capacity)
    await _together([_send_rows(session, mapping, supply, answers, tally) for _ in range(workers)])
    message = ""
    if answers.failed:
        message = rows_message(rows, answers.failed, answers.first_failure())
    if answers.failed == rows:
        return Outcome(
            item.number, item.source, item.result_name, message, False, rows, answers.failed, bytes_read=len(data)
        )
    result = answers.result()
    await _write(session, item, result)
    return Outcome(
        item.number, item.source, item.result_name, message, True, rows, answers.failed, len(data), len(result)
    )


def _rows_per_request(session: Session, mapping: Mapping) -> int:
    asked = session.run.service.rows_per_request
    if session.one_row_only or not mapping.takes_many_rows:
        return 1
    return AUTO_ROWS if asked == "auto" else asked


class _Answers:
    """The answer lines of one CSV item, in row order, however they come in."""

    def __init__(self) -> None:
        self._lines: dict[int, bytes] = {}
        self._failures: dict[int, str] = {}

    def add(self, row: Row, answer: bytes) -> None:
        self._lines[row.number] = answer

    def fail(self, row: Row, message: str) -> None:
        self._lines[row.number] = error_line(message)
        self._failures[row.number] = message

    @property
    def failed(self) -> int:
        return len(self._failures)

    def first_failure(self) -> str:
        number = min(self._failures)
        return f"row {number}: {self._failures[number]}"

    def result(self) -> bytes:
        return b"".join(part for number in range(1, len(self._lines) + 1) for part in (self._lines[number], b"\n"))


async def _send_rows(
    session: Session, mapping: Mapping, supply: Iterator[Row], answers: _Answers, tally: Tally
) -> None:
    """Take rows from the common supply and send them, until there are no more."""
    while True:
        size = _rows_per_request(session, mapping)
        taken = list(itertools.islice(supply, size))
        if not taken:
            return
        if session.stopped:
            for row in taken:
                answers.fail(row, session.stopped)
            continue
        ready: list[tuple[Row, bytes]] = []
        for row in taken:
            try:
                ready.append((row, mapping.body(row.cells, row.line)))
            except RowError as error:
                answers.fail(row, str(error))
        if len(ready) > 1 and await _send_joined(session, mapping, ready, answers, tally):
            continue
        for row, body in ready:
            try:
                answers.add(row, _line(await session.sender.send(row_body(body), tally)))
            except AnswerError as error:
                answers.fail(row, str(error))


async def _send_joined(
    session: Session, mapping: Mapping, ready: Sequence[tuple[Row, bytes]], answers: _Answers, tally: Tally
) -> bool:
    """Send several rows in one request; whether each row has its answer (else they are sent one by one)."""
    try:
        answer = await session.sender.send(row_body(mapping.join_bodies([body for _, body in ready])), tally)
    except AnswerError:
        return False
    parts = None if _json_error(answer) else split(answer, len(ready))
    if parts is None:
        session.one_row_only = True
        return False
    for (row, _), part in zip(ready, parts, strict=True):
        answers.add(row, part)
    return True


def _line(answer: bytes) -> bytes:
    """A row's answer as one line. Raises AnswerError if it is not JSON."""
    if error := _json_error(answer):
        if not answer.strip():
            raise AnswerError("The model's answer is empty; JSON was expected")
        raise AnswerError(f"The model's answer is not JSON ({error}): {shown(answer)}")
    return compact(answer)


def _json_error(answer: bytes) -> str:
    """Why an answer is not JSON, or an empty text."""
    try:
        orjson.loads(answer)
        return ""
    except orjson.JSONDecodeError as error:
        said = str(error)
    try:  # orjson refuses numbers that no double can hold, which JSON allows
        json.loads(answer, parse_constant=_no_number, parse_int=str, parse_float=str)
        return ""
    except (ValueError, RecursionError):
        return said


def _no_number(name: str) -> None:
    raise ValueError(name)


async def _together(work: list) -> None:  # type: ignore[type-arg]
    if len(work) == 1:
        await work[0]
        return
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(one)
