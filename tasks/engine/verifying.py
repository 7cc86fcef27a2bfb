"""Checks, before anything is published, that the result files named in the reports exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing

from tasks.clients.storage.failures import IsFolder, Missing
from tasks.clients.storage.output_folder import OutputFolder
from tasks.domain.errors import UploadError
from tasks.domain.ledger import Ledger
from tasks.domain.result import Outcome, Tally

LOOKS_AT_ONCE = 64


async def lost_results(
    claims: Ledger, outcomes: Callable[[], AsyncIterator[list[Outcome]]], output: OutputFolder, folder: str
) -> tuple[dict[int, Outcome], int]:
    """The FAILED outcomes, by item number, of items whose result file in ``folder`` is missing or has another size.

    Also the total size with which these files were written. The folder is listed once; single files are checked only
    where the list does not match the ``claims`` of the reports. Raises ObjectError if the folder cannot be listed.
    """
    lost: dict[int, Outcome] = {}
    bytes_lost = 0
    if claims.balanced:  # nothing was written
        return lost, 0
    async with aclosing(output.sizes(folder)) as pages:
        async for page in pages:
            claims.found(page)
    if claims.balanced:
        return lost, 0
    async for some in outcomes():
        doubtful = [one for one in some if one.written and claims.doubts(one.result_name)]
        for start in range(0, len(doubtful), LOOKS_AT_ONCE):
            bytes_lost += await _look(doubtful[start : start + LOOKS_AT_ONCE], output, folder, lost)
    return lost, bytes_lost


async def _look(doubtful: Sequence[Outcome], output: OutputFolder, folder: str, lost: dict[int, Outcome]) -> int:
    bytes_lost = 0
    sizes = await asyncio.gather(*(_size(output, f"{folder}/{one.result_name}") for one in doubtful))
    for one, size in zip(doubtful, sizes, strict=True):
        if size != one.bytes_written:
            now = "it is not there any more" if size < 0 else f"it has {size} now"
            message = str(UploadError(f"It was written with {one.bytes_written} bytes, but {now}."))
            if one.message:  # FAILED for another reason, with a file of the answered rows
                message = f"{one.message} {message}"
            lost[one.number] = one._replace(message=message, written=False, bytes_written=0)
            bytes_lost += one.bytes_written
    return bytes_lost


async def _size(output: OutputFolder, name: str) -> int:
    try:
        return await output.size(name)
    except (Missing, IsFolder):
        return -1


def without(tally: Tally, lost: dict[int, Outcome], written: int) -> None:
    """Count the items whose result files are lost as FAILED; ``written`` is the total size of these files."""
    again = Tally()
    believed = [one for one in lost.values() if not one.failed_rows]  # the others were FAILED already
    for outcome in believed:
        again.add(outcome._replace(rows=0, failed_rows=0, bytes_read=0))
    tally.successful -= len(believed)
    tally.bytes_written -= written
    tally.merge([again])
