"""One item from its bytes to its outcome: one request per file, or for a CSV file one per row (or several rows)."""

from __future__ import annotations

import asyncio
import logging
import time

from tasks.clients.storage.failures import Missing, NoSpace, ObjectError, TooLarge, Unreachable
from tasks.clients.storage.output_folder import OutputFolder
from tasks.domain.cells import unseen_signs
from tasks.domain.errors import ContentError, DownloadError, ItemError, UploadError
from tasks.domain.header import TableMapping
from tasks.domain.item import Item
from tasks.domain.paths import Address, parse_address
from tasks.domain.result import Outcome, rows_message
from tasks.domain.stop import Stop
from tasks.engine.answer_lines import Answers
from tasks.engine.budget import Held
from tasks.engine.rows import answer_rows
from tasks.engine.sent import Sent
from tasks.engine.session import Session

CSV_COST = 12
"""Memory reserved for a CSV item, as a multiple of its size: its text and answers are held until it is complete."""
IN_ONE_PIECE = 32 << 20
"""Size of a table's result file, in bytes, above which it is written in pieces."""
FULL_PAUSES_SECONDS = (0.2, 1.0)
"""Pauses before retries to write a result while the disk is full."""
FULL_ROUNDS = 5
"""Most rounds of these retries; a new one begins when a disk that was full has room again."""
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")

_log = logging.getLogger(__name__)


async def process(session: Session, item: Item, sent: Sent) -> Outcome:
    """Read, send and write one item. Never raises: any failure becomes the item's outcome.

    The outcome counts once ``sent`` is settled, unless it is doubted.
    """
    held: Held | None = None
    try:
        if item.error:
            raise ItemError(item.error)
        address = parse_address(item.address)
        mapping = session.mapping
        limit = session.settings.max_item_bytes
        # Before waiting for room in memory: an item that is refused anyway must not hold up others.
        name = address.name
        if refused := refusal(name, item.size, limit, table=mapping is not None):
            raise ContentError(refused)
        # Until its bytes are here, an item of unknown size counts as the largest allowed.
        size = item.size if item.size >= 0 else limit
        held = await session.bytes.hold(size if mapping is None else size * CSV_COST, single=mapping is None)
        sent.room = held
        if mapping is None:
            return await _file(session, item, address, name, held, sent)
        return await _table(session, mapping, item, address, held, sent)
    except ItemError as error:
        return Outcome(item.number, item.source, item.result_name, session.masker.line(str(error)), False)
    except Exception as error:
        # A bug here or in a library must not fail the other items.
        _log.exception("unexpected item=%d", item.number)
        return Outcome(item.number, item.source, item.result_name, f"Unexpected {type(error).__name__}.", False)
    finally:
        if held is not None:
            held.give_back()


def refusal(name: str, size: int, limit: int, *, table: bool) -> str:
    """Why a file of this name and size (in bytes, -1 if unknown) is not read at all, or an empty text.

    ``table``: whether the model takes rows.
    """
    if table and not name.lower().endswith(".csv"):
        return "A .csv file was expected, because the model's request is JSON: one request a row."
    return size_error(name, size, limit)


def size_error(name: str, size: int, limit: int) -> str:
    """Why a file is too large, or an empty text: an image must be smaller than the limit, other files not larger."""
    image = name.lower().endswith(IMAGES)
    if size < limit or (size == limit and not image):
        return ""
    rule = "smaller than" if image else "not larger than"
    return f"The file has {size} bytes; it should be {rule} {limit} bytes ({limit / (1 << 20):g} MiB)."


async def _read(session: Session, item: Item, address: Address) -> bytes:
    limit = session.settings.max_item_bytes
    try:
        if address.scheme == "local":
            data = await session.storage.read(address, limit, item.size)
        else:
            async with session.remote_reads:
                data = await session.storage.read(address, limit, item.size, item.version)
    except TooLarge as larger:
        raise ContentError(size_error(address.name, larger.size, limit)) from None
    except ObjectError as failed:
        if isinstance(failed, Unreachable):
            session.reach.does_not_reach(address)
        hint = unseen_signs(item.source) if isinstance(failed, Missing) else ""
        raise DownloadError(f"{failed.cause}{hint}") from None
    if len(data) != item.size and (wrong := size_error(address.name, len(data), limit)):
        raise ContentError(wrong)
    return data


async def _write(session: Session, item: Item, data: bytes | Answers) -> None:
    name = f"{session.result_folder}/{item.result_name}"
    rounds, pauses = FULL_ROUNDS, iter(FULL_PAUSES_SECONDS)
    while True:
        try:
            if session.output.root.scheme == "local":
                await _write_whole(session.output, name, data)
            else:
                async with session.remote_writes:
                    await _write_whole(session.output, name, data)
            return
        except ObjectError as error:
            if isinstance(error, NoSpace) and (pause := next(pauses, 0)):
                # Others may be writing results that will not fit.
                await asyncio.sleep(pause)
                continue
            rounds -= 1
            if session.output.is_gone():
                session.ending.stop(
                    Stop(reason="output gone", cause=f"the output folder {session.output.root} is gone")
                )
            elif isinstance(error, Unreachable):
                session.reach.does_not_reach(session.output.root.child(name))
            elif await session.reach.makes_room(error, len(data) if isinstance(data, bytes) else data.size) and rounds:
                pauses = iter(FULL_PAUSES_SECONDS)
                continue
            raise UploadError(error.cause) from None


async def _write_whole(output: OutputFolder, name: str, data: bytes | Answers) -> None:
    if isinstance(data, bytes):
        await output.write(name, data)
    elif data.size <= IN_ONE_PIECE:
        await output.write(name, data.result())
    else:
        async with output.stream(name) as writer:
            for piece in data.pieces():
                await writer.write(piece)
                await asyncio.sleep(0)


async def _file(session: Session, item: Item, address: Address, name: str, held: Held, sent: Sent) -> Outcome:
    assert session.form is not None
    began = time.monotonic()
    data = await _read(session, item, address)
    read = time.monotonic()
    size = len(data)
    held.shrink(size)
    body = session.form.body(name, data)
    del data  # the body holds it now
    answer = (await session.sender.send(body, sent)).data
    del body
    held.change(len(answer))
    answered = time.monotonic()
    await _write(session, item, answer)
    written = time.monotonic()
    session.shards.note_storage(read - began + written - answered, written - began)
    return Outcome(item.number, item.source, item.result_name, "", True, bytes_read=size, bytes_written=len(answer))


async def _table(
    session: Session, mapping: TableMapping, item: Item, address: Address, held: Held, sent: Sent
) -> Outcome:
    data = await _read(session, item, address)
    size = len(data)
    held.shrink(size * CSV_COST)
    answers = await answer_rows(session, mapping, item, data, sent)
    message = ""
    if answers.failed:
        message = session.masker.line(rows_message(answers.rows, answers.failed, answers.first_failure()))
    written = answers.failed < answers.rows
    if written:
        await _write(session, item, answers)
    counts = (answers.rows, answers.failed, size, answers.size if written else 0)
    return Outcome(item.number, item.source, item.result_name, message, written, *counts)
