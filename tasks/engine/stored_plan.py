"""The stored plan of a run; the plan of an earlier try is checked against the service before it is used.

A plan determines which files are read with the flow's keys, and where results go. Within one try of a run, references
to the plan carry its digests. A later try finds it in the output folder, where others may write: so its items must be
in the run's input, and if a manifest names the items, they must be exactly those.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

from pydantic import ValidationError

from tasks.clients.storage.failures import Missing, ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.tables import plan_bytes, read_plan
from tasks.domain.errors import DamagedFile, StorageError
from tasks.domain.item import Item
from tasks.domain.paths import Address, parse_address, safe_relative
from tasks.domain.run import PLAN_NAME, PLANNED, SHARDS, Plan, Run, ShardRef
from tasks.domain.seal import digest, seal, unseal

READS_AT_ONCE = 16
"""Number of parts of a plan that are read concurrently."""
_CHANGED = "it was changed after the run had been planned. Start a new run"

_log = logging.getLogger(__name__)


def sealed_plan(run: Run, plan: Plan) -> bytes:
    """A plan in its stored form."""
    return seal(plan.model_dump_json().encode(), run.task_id)


def sealed_part(run: Run, shard: ShardRef, items: Sequence[Item]) -> tuple[ShardRef, bytes]:
    """The reference to a planned shard, and its part of the plan in stored form."""
    data = plan_bytes(items, shard.owner(run.task_id))
    return shard.model_copy(update={"digest": digest(data)}), data


def read_part(run: Run, shard: ShardRef, data: bytes) -> list[Item]:
    """The items of a shard, or of a piece of one. Raises DamagedFile if they are not those that were planned."""
    if shard.digest and digest(data) != shard.digest:
        raise DamagedFile("is not as it was when the run was planned")
    return read_plan(data, shard.first_item, shard.end, shard.owner(run.task_id))


async def stored_plan(run: Run, output: OutputFolder) -> Plan | None:
    """The stored plan of a run; None if it has none, or only a damaged one that was not used yet.

    Raises StorageError, also for a damaged plan that was used: results of it might not match a new plan.
    """
    name = f"{output.scratch.name}/{PLAN_NAME}"
    try:
        plan = Plan.model_validate_json(unseal(await output.read(name), run.task_id))
        if plan.published is not None or not all(shard.digest for shard in plan.shards):
            raise DamagedFile("is not as a plan is written")  # without digests its parts could still be exchanged
        return plan
    except Missing:
        return None
    except ObjectError as error:
        raise StorageError(f"The plan in {output.scratch} cannot be read: {error.cause}") from None
    except (ValidationError, DamagedFile) as error:
        place = output.root.child(name)
        why = f"it {error}" if isinstance(error, DamagedFile) else "it is of another form"
    try:
        used = any(one.rpartition("/")[2] != PLANNED for one in await output.list(f"{output.scratch.name}/{SHARDS}"))
    except ObjectError as error:
        raise StorageError(f"The plan in {output.scratch} cannot be read: {error.cause}") from None
    if used:
        raise StorageError(f"{place} is no plan ({why}): remove {output.scratch} to begin again.")
    _log.warning("plan damaged file=%s: %s", place, why)
    return None


async def check_plan(
    run: Run, plan: Plan, items: Callable[[], AsyncGenerator[Item]], output: OutputFolder, *, named: bool
) -> None:
    """Check every part of a stored plan against the run's input; a damaged part is restored from the input.

    ``items`` reads the input; ``named``: whether a manifest names the items. Raises StorageError for a part that names
    files outside the input, or that is damaged when the input has also changed; ObjectError.
    """
    damaged: set[int] = set()
    for at in range(0, len(plan.shards), READS_AT_ONCE):
        some = plan.shards[at : at + READS_AT_ONCE]
        for shard, found in zip(some, await asyncio.gather(*(_part(run, one, output) for one in some)), strict=True):
            if isinstance(found, DamagedFile):
                _log.warning("plan damaged file=%s: it %s", output.scratch.child(shard.plan_name), found)
                damaged.add(shard.number)
            else:
                _check_places(run, found, output.scratch.child(shard.plan_name), named=named)
    if named or damaged:
        await _compare(run, plan, items, output, damaged)


async def _part(run: Run, shard: ShardRef, output: OutputFolder) -> list[Item] | DamagedFile:
    try:
        items = read_part(run, shard, await output.read(f"{output.scratch.name}/{shard.plan_name}"))
    except DamagedFile as damage:
        return damage
    except Missing:
        return DamagedFile("is missing")
    whole = [item.number for item in items] == [*range(shard.first_item, shard.end)]
    return items if whole else DamagedFile("has other items than were planned")


def _check_places(run: Run, items: Sequence[Item], part: Address, *, named: bool) -> None:
    """Raises StorageError if an item would be read outside the input, or its result written outside its folder."""
    source = parse_address(run.service.input_path)
    for item in items:
        if safe_relative(item.result_name) != item.result_name:
            raise StorageError(f"{part} has the result file {item.result_name!r} outside of its folder: {_CHANGED}.")
        if not (named or item.error or source.contains(parse_address(item.address))):
            raise StorageError(f"{part} has {item.address!r}, which is not in {source}: {_CHANGED}.")


async def _compare(
    run: Run, plan: Plan, items: Callable[[], AsyncGenerator[Item]], output: OutputFolder, damaged: set[int]
) -> None:
    """Read the input again and compare it with each stored part; a damaged part is written again."""
    shards = iter(plan.shards)
    shard = next(shards, None)
    part: list[Item] = []
    async with aclosing(items()) as found:
        async for item in found:
            if shard is None:
                raise _other(output)
            part.append(item)
            if len(part) == shard.items:
                await _same(run, shard, part, output, damaged)
                shard, part = next(shards, None), []
    if shard is not None:
        raise _other(output)


async def _same(run: Run, shard: ShardRef, items: Sequence[Item], output: OutputFolder, damaged: set[int]) -> None:
    name = f"{output.scratch.name}/{shard.plan_name}"
    if shard.number not in damaged:
        stored = read_part(run, shard, await output.read(name))
        if [_identity(one) for one in stored] != [_identity(one) for one in items]:
            raise _other(output)
        return
    made, data = sealed_part(run, shard, items)
    if made.digest != shard.digest:
        raise _other(output)
    await output.write(name, data)


def _identity(item: Item) -> tuple[str, str, str]:
    """The fields of an item that do not change when its file does."""
    return item.source, item.address, item.result_name


def _other(output: OutputFolder) -> StorageError:
    return StorageError(
        f"The plan in {output.scratch} does not fit the run's input: a part of it was changed or damaged, or the input "
        "was. Start a new run."
    )
