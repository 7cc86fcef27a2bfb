"""The outcomes of a run's items, read from its output manifest line by line, in bounded memory."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain.errors import ItemError, Problem, SpecificationError, StorageError
from tasks.domain.paths import parse_address, redact_source, run_of_manifest
from tasks.domain.run import RunResult
from tasks.domain.settings import read_settings
from tasks.engine.earlier import EarlierManifest
from tasks.engine.loop import engine_loop
from tasks.prefect_side.storage_keys import storage_keys

READ_AHEAD_BYTES = 1 << 20
"""Lines of the manifest that are read at once."""


@dataclass(frozen=True, slots=True)
class ItemOutcome:
    """One item of a run, as its output manifest has it.

    ::

        if not item.succeeded:
            print(item.source, item.error)
    """

    source: str
    error: str
    """Why it is FAILED; empty if it succeeded."""
    location: str
    """The address of its result file; empty if there is none."""
    _results: Results = field(repr=False, compare=False)

    @property
    def succeeded(self) -> bool:
        """Whether it is SUCCESSFUL."""
        return not self.error

    def answer(self) -> bytes:
        """What the model answered: the result file, from the disk or from the bucket with the administrator's keys.

        Of a table in which some rows failed, this is the file with the answers to the others. Raises ThresherError if
        there is no result file, or it cannot be read.
        """
        if not self.location:
            raise ItemError(f"{redact_source(self.source)} has no answer: {self.error}")
        return engine_loop().run_blocking(self._results._read(self.location))


class Results:
    """The outcome of each item of a run, in the order of the input; each iteration reads the manifest again.

    ::

        for item in thresher.results(manifest):
            print(item.source, item.succeeded)
    """

    def __init__(self, manifest: str) -> None:
        try:
            self._address = parse_address(manifest)
            if run_of_manifest(self._address.path) is None:
                raise ValueError("should be the first part of an output manifest: .../infer-result-<task id>.manifest")
        except ValueError as wrong:
            raise SpecificationError([Problem("MANIFEST", manifest, str(wrong))]) from None
        self.manifest = str(self._address)
        self._storage: Storage | None = None
        self._reading = 0
        engine_loop().run_blocking(self._check())

    def __repr__(self) -> str:
        return f"Results({self.manifest!r})"

    def __iter__(self) -> Iterator[ItemOutcome]:
        lines = self._lines()
        try:
            while some := engine_loop().run_blocking(_some(lines)):
                yield from some
        finally:
            engine_loop().begin(lines.aclose())  # not waited for: this may be the end of the process

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[EarlierManifest]:
        settings = read_settings()
        async with open_storage(settings, await storage_keys(settings)) as storage:
            try:
                yield EarlierManifest(storage, self._address)
            except ObjectError as error:
                raise StorageError(f"The output manifest {self.manifest} cannot be read: {error.cause}") from None

    async def _check(self) -> None:
        async with self._opened() as manifest:
            await manifest.check_published()

    async def _lines(self) -> AsyncGenerator[tuple[ItemOutcome, int]]:
        """Every item, and the bytes of its line."""
        async with self._opened() as manifest:
            async for raw, line in manifest.lines():
                yield ItemOutcome(line.source, line.message, line.location, self), len(raw)

    async def _read(self, location: str) -> bytes:
        if self._storage is None:  # kept, with the keys and the connections of buckets, for the next answers
            settings = read_settings()
            self._storage = Storage(settings, await storage_keys(settings))
        storage = self._storage
        self._reading += 1
        try:
            return await storage.read(parse_address(location))
        except ObjectError as error:
            raise StorageError(f"The result file {location} cannot be read: {error.cause}") from None
        finally:
            self._reading -= 1
            if not self._reading:
                await storage.close()  # what cannot stay open until the end of the process; it opens again by itself


class Result(RunResult):
    """The outcome of :func:`thresher.run`: addresses and counts; iterating gives an :class:`ItemOutcome` for each item.

    ::

        print(result.counts, result.failure or "Completed")
        answers = {item.source: item.answer() for item in result if item.succeeded}
    """

    def __iter__(self) -> Iterator[ItemOutcome]:  # type: ignore[override]
        return iter(Results(self.manifest))


async def _some(lines: AsyncGenerator[tuple[ItemOutcome, int]]) -> list[ItemOutcome]:
    """The next items; empty at the end."""
    some, size = [], 0
    async for item, length in lines:
        some.append(item)
        size += length
        if size >= READ_AHEAD_BYTES:
            break
    return some
