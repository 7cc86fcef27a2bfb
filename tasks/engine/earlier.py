"""The output manifest of an earlier run whose FAILED items are sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from tasks.clients.storage.failures import Missing, ObjectError, TooLarge
from tasks.clients.storage.storage import Storage
from tasks.domain.errors import AccountError
from tasks.domain.manifest import LONGEST_OUTPUT_LINE, OutputLine, read_output_line
from tasks.domain.paths import Address, OutputNames, run_of_manifest
from tasks.domain.result import Outcome

LINES_AT_ONCE = 1_000
"""Lines read before yielding to the event loop: reading a local file does not yield, and must be cancellable."""

MAX_SUMMARY_BYTES = 16 << 20


class EarlierManifest:
    """All parts of an output manifest, found by the address of the first."""

    def __init__(self, storage: Storage, address: Address) -> None:
        self._storage = storage
        self._address = address
        self._names = OutputNames(run_of_manifest(address.path) or "")

    def _beside(self, name: str) -> Address:
        folder, slash, _ = self._address.path.rpartition("/")
        return replace(self._address, path=folder + slash + name)

    @property
    def _folder(self) -> Address:
        path = self._address.path.rpartition("/")[0]
        return replace(self._address, path=path or ("/" if self._address.scheme == "local" else ""))

    async def check_published(self) -> None:
        """Check that the manifest exists. Raises ObjectError."""
        if not await self._storage.is_file(self._address):
            if self._names.scratch in [name.rstrip("/") for name in await self._storage.top(self._folder)]:
                raise Missing(
                    f"its run has not published it: it is still active, or it was ended from outside; what it has done "
                    f"so far is in {self._names.scratch}"
                )
            raise Missing("there is no such output manifest")

    async def check(self) -> None:
        """Check that the manifest exists and has a FAILED item. Raises ObjectError."""
        await self.check_published()
        counts = await self._counts()
        if counts is None or counts[2]:
            async with aclosing(self.lines()) as lines:
                async for _, line in lines:
                    if line.message:
                        return
        raise ObjectError("no item is FAILED in it, so there is nothing to try again")

    async def lines(self) -> AsyncGenerator[tuple[bytes, OutputLine]]:
        """Every line, raw and parsed, in order. Raises ObjectError if a line is damaged or missing."""
        counts = await self._counts()
        number = part = 0
        while True:
            address = self._beside(self._names.manifest(part))
            in_part = 0
            try:
                async for raw in self._storage.lines(address, longest=LONGEST_OUTPUT_LINE):
                    in_part += 1
                    yield raw, _read(raw, in_part, address)
                    if in_part % LINES_AT_ONCE == 0:
                        await asyncio.sleep(0)
            except Missing as error:
                raise ObjectError(f"{address.name}: {error.cause}") from None
            number += in_part
            part += 1
            if counts is None:
                if not await self._storage.is_file(self._beside(self._names.manifest(part))):
                    return
            elif part == counts[0]:
                break
        if number != counts[1]:
            raise ObjectError(
                f"it is damaged: it has {number} lines in {part} part{'' if part == 1 else 's'}, but its run's summary "
                f"({self._names.summary}) counts {counts[1]} items"
            )

    async def merged(self, now: AsyncGenerator[tuple[Outcome, str]]) -> AsyncGenerator[str]:
        """Every line, in the same order, with FAILED lines replaced by the new ones of these items from ``now``.

        Raises AccountError if the items are not the same; ObjectError.
        """
        async with aclosing(self.lines()) as lines:
            async for raw, line in lines:
                if not line.message:
                    yield f"{raw.decode()}\n"
                    continue
                outcome, text = await anext(now, (None, ""))
                if outcome is None or outcome.source != line.source:
                    raise self._changed()
                yield text
        if await anext(now, None) is not None:
            raise self._changed()

    def _changed(self) -> AccountError:
        return AccountError(
            f"The output manifest {self._address} has changed since its FAILED items were planned, so the merged one "
            "is not published."
        )

    async def _counts(self) -> tuple[int, int, int] | None:
        """Numbers of parts, items and FAILED items from the summary of its run; None without a summary."""
        summary = self._beside(self._names.summary)
        try:
            document = json.loads(await self._storage.read(summary, MAX_SUMMARY_BYTES))
            items = document["items"]
            return len(document["manifests"]), int(items["planned"]), int(items["failed"])
        except Missing:
            return None
        except (ValueError, TypeError, KeyError, RecursionError, TooLarge):
            raise ObjectError(f"the summary of its run, {self._names.summary}, is damaged") from None


def _read(raw: bytes, number: int, part: Address) -> OutputLine:
    try:
        return read_output_line(raw)
    except ValueError as wrong:
        raise ObjectError(f"line {number} of {part.name} is no line of an output manifest: {wrong}") from None
