"""Turns an input path into items, and items into stored shards."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import replace

from tasks.clients.storage.failures import Missing, ObjectError
from tasks.clients.storage.local_files import refuse_system
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.domain.cells import unseen_signs
from tasks.domain.errors import DownloadError, Problem, SpecificationError, StorageError, ThresherError
from tasks.domain.fingerprint import Digest, Fingerprint
from tasks.domain.item import UNKNOWN_SIZE, Item
from tasks.domain.manifest import MANIFEST_SUFFIX, NAME_NOT_UTF8, Entry, foreign, read_line
from tasks.domain.paths import Address, parse_address, redact, result_name
from tasks.domain.plain_text import has_halves
from tasks.domain.run import PLAN_NAME, Plan, Run, RunStopped, ShardRef
from tasks.domain.settings import Settings
from tasks.domain.shard import Cutter, ShardBounds
from tasks.domain.system_places import refusal, system_place
from tasks.domain.used_names import UsedNames
from tasks.engine.earlier import LINES_AT_ONCE, EarlierManifest
from tasks.engine.fingerprinting import fingerprint_of, is_manifest
from tasks.engine.progress import progress_of
from tasks.engine.published import published_result
from tasks.engine.stored_plan import check_plan, sealed_part, sealed_plan, stored_plan

GIVE_UP_SECONDS = 10.0
_PLACEHOLDER = "_$folder$"
"""Suffix of the placeholder objects that Hadoop's programs create for folders."""
_HIDDEN = re.compile(r"(?:^|/)(?:_|\.(?!\.?(?:/|$)))")


def is_passed_over(relative: str) -> bool:
    """Whether a file of a folder is not an item: it or a folder above it is hidden, or it is a placeholder or manifest.

    Names that begin with a dot or ``_`` are hidden: programs leave ``_SUCCESS``, ``_temporary/``, ``_committed_7`` with
    their data. The parts ``.`` and ``..``, which an object's key may have, do not count as hidden.
    """
    if (relative.startswith((".", "_")) or "/." in relative or "/_" in relative) and _HIDDEN.search(relative):
        return True
    return relative.endswith((MANIFEST_SUFFIX, _PLACEHOLDER))


async def first_file(storage: Storage, source: Address) -> None:
    """Check that an input path can be read and has an item. Raises ObjectError, which says what is expected."""
    if source.scheme == "local":
        refuse_system(source.path)
    if is_manifest(source):
        if not await storage.is_file(source):
            raise Missing("there is no such input manifest")
        async with aclosing(storage.stream(source)) as chunks:
            async for head in chunks:
                _check_head(head)
                return
        raise ObjectError("the input manifest is empty")
    if await storage.is_file(source):
        return
    if source.scheme == "local" and not os.path.isdir(source.path):
        raise Missing("there is no such folder or file")
    skipped = 0
    async with aclosing(storage.list(source)) as files:
        async for relative, _, _ in files:
            if not is_passed_over(relative):
                return
            skipped += 1
    hidden = f" ({skipped} hidden files, names that begin with _ and manifests do not count)" if skipped else ""
    raise ObjectError(f"there is no file in this folder{hidden}")


def _check_head(head: bytes) -> None:
    """Raises ObjectError if a file that begins with ``head`` is not an input manifest."""
    if problem := foreign(head):
        raise ObjectError(problem)


class Planner:
    """Turns an input path into items, in order; with ``failed_of``, into those that are FAILED in that output manifest.

    Others may be able to write to that manifest, so a file that it names is read only if it is also in the input.

    ``warnings`` and ``passed`` (the number of that manifest's lines that are not FAILED) grow while :meth:`items` runs.
    ``manifest`` is the digest of the input manifest, of exactly the bytes that were read, even if the file changes
    later; it is empty until a manifest has been read to its end.
    """

    def __init__(self, storage: Storage, source: Address, failed_of: Address | None = None) -> None:
        self._storage = storage
        self._source = source
        self._failed_of = failed_of
        self.passed = 0
        self.manifest = ""
        self.warnings: list[str] = []

    def items(self) -> AsyncGenerator[Item]:
        """Every item of the input, in input order. Raises ObjectError if the input cannot be read."""
        named = is_manifest(self._source)
        if self._failed_of is not None:
            return self._of_earlier_run(EarlierManifest(self._storage, self._failed_of), named)
        return self._of_manifest() if named else self._of_file_or_folder()

    async def _of_file_or_folder(self) -> AsyncGenerator[Item]:
        source = self._source
        if (size := await self._size_of_file()) >= 0:
            yield Item(0, str(source), str(source), size, result_name(source.name), "")
            return
        base = str(replace(source, path=f"{source.path.rstrip('/')}/")) if source.path else str(source)
        number = manifests = marks = 0
        async with aclosing(self._storage.list(source)) as files:
            async for relative, size, version in files:
                if is_passed_over(relative):
                    manifests += relative.endswith(MANIFEST_SUFFIX)
                    marks += relative.startswith("_") or "/_" in relative or relative.endswith(_PLACEHOLDER)
                    continue
                address = base + relative
                if not size and await self._storage.is_placeholder(parse_address(address)):
                    marks += 1
                    continue
                if has_halves(address):
                    shown = address.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                    error = str(DownloadError(NAME_NOT_UTF8))
                    yield Item(number, shown, "", size, result_name(f"item-{number}"), error)
                else:
                    yield Item(number, address, address, size, result_name(relative), "", version)
                number += 1
        if manifests:
            self.warnings.append(
                f"{manifests} manifest{'s' if manifests > 1 else ''} inside the input folder passed over; "
                "to use one, give it as the input path"
            )
        if marks:
            self.warnings.append(
                f"{marks} file{'s' if marks > 1 else ''} passed over: names and folders that begin with _, and "
                "placeholders of folders"
            )

    async def _size_of_file(self) -> int:
        """Size in bytes of the input path if it is a file; -1 if it is a folder."""
        source = self._source
        if not await self._storage.is_file(source):
            return -1
        size = await self._storage.size(source)
        if size == 0 and await self._storage.is_placeholder(source):
            self.warnings.append(f"{source} is an empty object with others below it: it was read as their folder")
            return -1
        return size

    async def _of_manifest(self) -> AsyncGenerator[Item]:
        local = self._source.scheme == "local"
        base = os.path.dirname(self._source.path) if local else None
        used = UsedNames()
        number = 0
        async with aclosing(self._entries()) as entries:
            async for entry in entries:
                yield _item(entry, number, base, used)
                number += 1

    async def _entries(self) -> AsyncGenerator[Entry]:
        """The entries of an input manifest; sets its digest once it has been read to its end."""
        digest = Digest()
        line = 0

        def see(chunk: bytes) -> None:
            if digest.is_empty:
                _check_head(chunk)
            digest.add(chunk)

        async with aclosing(self._storage.lines(self._source, see)) as lines:
            async for raw in lines:
                line += 1
                for entry in read_line(raw, line):
                    yield entry
        self.manifest = str(digest)

    async def _of_earlier_run(self, earlier: EarlierManifest, named: bool) -> AsyncGenerator[Item]:
        local = self._source.scheme == "local"
        base = (os.path.dirname(self._source.path) if named else self._source.path) if local else None
        listed = await self._sources() if named else None
        alone = not named and await self._size_of_file() >= 0
        used = UsedNames()
        number = 0
        async with aclosing(earlier.lines()) as lines:
            async for _, line in lines:
                if not line.message:
                    self.passed += 1
                    continue
                # A line that had no readable source in the earlier run is not taken for a name now.
                entry = Entry(line.source, "" if line.has_source else line.message)
                if listed is not None and not entry.error and entry.source not in listed:
                    entry = Entry(entry.source, str(DownloadError(f"It is not in the input manifest {self._source}.")))
                if alone and not entry.error and not self._is_source(entry.source, base):
                    entry = Entry(entry.source, str(DownloadError(f"It is not the input path {self._source}.")))
                yield _item(entry, number, base, used, None if named or alone else self._source)
                number += 1

    def _is_source(self, text: str, base: str | None) -> bool:
        try:
            found = parse_address(text, base)
        except ValueError:
            return False
        source = self._source
        return (found.scheme, found.bucket, found.path) == (source.scheme, source.bucket, source.path)

    async def _sources(self) -> UsedNames:
        """The sources that an input manifest names. Raises StorageError if it cannot be read."""
        sources = UsedNames()
        read = 0
        try:
            async with aclosing(self._entries()) as entries:
                async for entry in entries:
                    if not entry.error:
                        sources.take(entry.source)
                    read += 1
                    if read % LINES_AT_ONCE == 0:
                        await asyncio.sleep(0)
        except ObjectError as error:
            shown = redact(str(self._source))
            raise StorageError(f"The input manifest {shown} cannot be read: {error.cause}") from None
        return sources


def _item(entry: Entry, number: int, base: str | None, used: UsedNames, folder: Address | None = None) -> Item:
    """The item of an entry. It must be in ``folder``, if given, and its result file keeps the sub-folders there."""
    error, address, size = entry.error, "", UNKNOWN_SIZE
    name = ""
    if not error:
        try:
            found = parse_address(entry.source, base)
            below = "" if folder is None else _below(folder, found)
            name = below or found.name
            # A share link ends in its signature, which may end in a slash.
            if not name or (found.scheme != "http" and entry.source.endswith("/")):
                raise ValueError("it is a folder; a manifest names files")
            if found.scheme == "local":
                if base is None:
                    raise ValueError("a local path may stand only in a manifest on a local disk")
                if place := system_place(found.path):
                    raise ValueError(refusal(place))
                try:
                    size = os.stat(found.path).st_size
                except (OSError, ValueError):
                    size = UNKNOWN_SIZE  # reading it will report the cause
            address = str(found)
        except ValueError as wrong:
            detail = redact(str(wrong)).rstrip(".")
            error = str(DownloadError(f"{detail[:1].upper()}{detail[1:]}.{unseen_signs(entry.source)}"))
    name = name or f"item-{number}"
    result = result_name(name)
    while not used.take(result):  # the changed name may also be taken
        result = result_name(name, number)
        name = f"{name}~{number}"
    return Item(number, entry.source, address, size, result, error)


def _below(folder: Address, found: Address) -> str:
    """The path relative to ``folder``. Raises ValueError if it is not an item of this folder."""
    above = f"{folder.path.rstrip('/')}/" if folder.path else ""
    below = found.path.removeprefix(above)
    if not folder.contains(found) or not found.path.startswith(above) or not below:
        raise ValueError(f"it is not in the input path {folder}")
    if is_passed_over(below):
        raise ValueError("hidden files, names that begin with _ and manifests of a folder are passed over")
    return below


async def _give_up(output: OutputFolder) -> None:
    """Remove an incomplete plan, or that of a published run; gives up soon if the storage does not respond."""
    with suppress(ObjectError, TimeoutError):
        async with asyncio.timeout(GIVE_UP_SECONDS):
            await output.remove_scratch()


async def _check_again(run: Run, stored: Plan, planner: Planner, storage: Storage, output: OutputFolder) -> None:
    """Check that a stored plan is still valid.

    Raises SpecificationError if something that the results depend on has changed since the run began; StorageError if
    the plan does not match the input although nothing has changed.
    """
    named = is_manifest(parse_address(run.service.input_path)) or run.failed_of is not None
    unfit: StorageError | None = None
    try:
        await check_plan(run, stored, planner.items, output, named=named)
    except StorageError as error:
        unfit = error
    except ObjectError as error:
        unfit = StorageError(f"The plan in {output.scratch} cannot be checked: {error.cause}")
    # The planner has read an input manifest to its end, unless the plan did not match it.
    now = await fingerprint_of(run, storage, with_manifest=not planner.manifest)
    if planner.manifest:
        now = now.with_manifest(planner.manifest)
    if changed := Fingerprint(fields=stored.fingerprint).changes(now, run.task_id):
        raise SpecificationError(changed)
    if unfit is not None:
        raise unfit from None


async def make_plan(run: Run, settings: Settings, storage: Storage, output: OutputFolder) -> Plan:
    """Plan a run: list the input, cut it into shards, store them. A run that is tried again keeps its plan.

    The plan of a run that has published has no shards, only its result. Raises SpecificationError if there is no item,
    or if something that the results depend on has changed since the run began; StorageError if the input cannot be read
    or the plan cannot be written; RunStopped if the run is stopped while it is planned. A complete plan is kept.
    """
    scratch = output.scratch.name
    progress = progress_of(run.task_id)
    if (published := await published_result(run, storage, output)) is not None:
        await _give_up(output)
        return Plan(items=published.items, bytes=0, unknown_sizes=0, shards=(), published=published)
    source = parse_address(run.service.input_path)
    planner = Planner(storage, source, run.failed_of)
    if (stored := await stored_plan(run, output)) is not None:
        await _check_again(run, stored, planner, storage, output)
        await output.give_up_uploads([run.names.result_folder, scratch])
        return stored
    # The input manifest is read only once, by the planner, so that its digest is that of the planned items.
    now = await fingerprint_of(run, storage, with_manifest=False)
    started = time.monotonic()
    named_by = run.service.failed_of or run.service.input_path
    cutter = Cutter(ShardBounds(settings.shard_items, settings.shard_bytes))
    shards: list[ShardRef] = []

    async def store(shard: ShardRef, items: Sequence[Item]) -> None:
        sealed, data = sealed_part(run, shard, items)
        with _writing(output):
            await output.write(f"{scratch}/{sealed.plan_name}", data)
        shards.append(sealed)

    try:
        with _writing(output):
            await output.make()
        async with aclosing(planner.items()) as items:
            async for item in items:
                if progress.stopped:
                    raise RunStopped("The run was stopped while its input was being listed; nothing was sent.")
                if (full := cutter.add(item)) is not None:
                    await store(*full)
                    await asyncio.sleep(0)  # a local listing never yields to the event loop, and must be cancellable
        if (last := cutter.end()) is not None:
            await store(*last)
        if not cutter.items:
            field = "input_path" if run.failed_of is None else "failed_of"
            raise SpecificationError([Problem(field, named_by, "there is no item in it")])
    except (asyncio.CancelledError, ThresherError):
        await _give_up(output)
        raise
    except ObjectError as error:
        await _give_up(output)
        raise StorageError(f"Planning {redact(named_by)} failed: {error.cause}") from None
    plan = Plan(
        items=cutter.items, bytes=cutter.bytes, kept=planner.passed if run.service.merge else 0,
        unknown_sizes=cutter.unknown_sizes, shards=tuple(shards),
        warnings=tuple(planner.warnings), seconds=round(time.monotonic() - started, 6),
        fingerprint=(now.with_manifest(planner.manifest) if planner.manifest else now).fields,
    )  # fmt: skip
    with _writing(output):
        await output.write(f"{scratch}/{PLAN_NAME}", sealed_plan(run, plan))
        await output.sync()
    return plan


@contextmanager
def _writing(output: OutputFolder) -> Iterator[None]:
    try:
        yield
    except ObjectError as error:
        raise StorageError(f"The plan in {output.scratch} (output_path) cannot be written: {error.cause}") from None
