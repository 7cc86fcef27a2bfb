"""Merges shard reports into output manifest and summary; publishes nothing unless every item is accounted for."""

from __future__ import annotations

import logging
import math
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from itertools import islice
from typing import Any, TypeVar

import orjson

from tasks.clients import clock
from tasks.clients.storage.failures import Missing, ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage
from tasks.clients.tables import read_numbers, read_report
from tasks.domain.errors import AccountError, DamagedFile, StorageError
from tasks.domain.ledger import Ledger
from tasks.domain.manifest import failed_line, successful_line
from tasks.domain.paths import Address, redact
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import Plan, Run, RunResult, ShardDone
from tasks.domain.seal import digest
from tasks.domain.settings import Settings
from tasks.engine.earlier import EarlierManifest
from tasks.engine.progress import progress_of
from tasks.engine.verifying import lost_results, without

T = TypeVar("T")

FLUSH_BYTES = 1 << 20
FIRST_BYTES = 16 << 10

_log = logging.getLogger(__name__)


async def publish_run(
    run: Run,
    plan: Plan,
    done: Sequence[ShardDone],
    settings: Settings,
    output: OutputFolder,
    earlier: EarlierManifest | None = None,
) -> RunResult:
    """Check the tally, write output manifest and summary, and remove the scratch folder unless the run is resumable.

    With ``earlier`` the new manifest is that one, with the new outcomes of its FAILED items.

    Raises AccountError if planned items and reported outcomes do not match one to one, StorageError if reports cannot
    be read or manifests cannot be written; nothing is published then, and the reports are kept.
    """
    started = clock.now()
    done = sorted(done, key=lambda one: (one.shard.first_item, one.shard.end))
    reports = _Reports(run, done, output)
    try:
        claims = Ledger()
        tally = await _account(plan, reports, claims)
        await reports.verify(plan, claims, tally)
        if earlier is not None:
            await _account_for_whole(run, plan, reports, output, earlier)
        lines = settings.manifest_lines
        parts = range(-(-(plan.kept + plan.items) // lines))
        await _write_parts(run, output, parts[1:], lines, _lines(run, plan, reports, output, earlier, lines))
        result = _result(run, plan, done, output, tally, len(parts), started)
        summary = orjson.dumps(_summary(run, plan, done, tally, result), option=orjson.OPT_INDENT_2) + b"\n"
        await output.write(run.names.summary, summary)
        await output.sync()
        # The first part is written last: a reader that sees it sees all parts.
        await _write_parts(run, output, parts[:1], lines, _lines(run, plan, reports, output, earlier))
    except ObjectError as error:
        raise StorageError(f"Publishing in {output.root} failed: {error.cause}") from None
    if result.resumable:  # a resumed run needs its plan and its reports
        return result
    try:
        await output.remove_scratch()
    except ObjectError as error:  # everything is published, so this does not change the result
        _log.warning("scratch not removed folder=%s cause=%s", output.scratch, error.cause)
    return result


class _Reports:
    """The reports of a run, read one by one; the latest is kept, since parts of the manifest end within reports."""

    def __init__(self, run: Run, done: Sequence[ShardDone], output: OutputFolder) -> None:
        self._run = run
        self._done = done
        self._output = output
        self._kept: tuple[str, list[Outcome]] = ("", [])
        self._lost: dict[int, Outcome] = {}

    async def verify(self, plan: Plan, claims: Ledger, tally: Tally) -> None:
        """Check that the result files exist; items whose file is missing become FAILED."""
        folder = self._run.names.result_folder
        self._lost, size = await lost_results(claims, lambda: self.outcomes(0, plan.items), self._output, folder)
        if self._lost:
            _log.warning("result files missing folder=%s items=%d", folder, len(self._lost))
            without(tally, self._lost, size)
            self._kept = ("", [])

    async def numbers(self) -> AsyncIterator[tuple[list[int], list[tuple[str, int]], Tally]]:
        """The item numbers, result files and tally of each report."""
        for one in self._done:
            yield await self._read(one, read_numbers)

    async def outcomes(self, first: int, end: int) -> AsyncIterator[list[Outcome]]:
        """The outcomes of the items from ``first`` up to ``end``; call once all reports are accounted for."""
        start = bisect_right(self._done, first, key=lambda one: one.shard.end)
        for one in islice(self._done, start, None):
            shard = one.shard
            if shard.first_item >= end:
                return
            if self._kept[0] != one.report:
                self._kept = ("", [])  # one at a time: it may be large
                outcomes, _ = await self._read(one, read_report)
                if self._lost:
                    outcomes = [self._lost.get(outcome.number, outcome) for outcome in outcomes]
                self._kept = (one.report, outcomes)
            yield self._kept[1][max(0, first - shard.first_item) : end - shard.first_item]

    async def _read(self, one: ShardDone, table: Callable[[bytes, str], T]) -> T:
        scratch = self._output.scratch
        try:
            data = await self._output.read(f"{scratch.name}/{one.report}")
            if one.digest and digest(data) != one.digest:
                with suppress(ObjectError):  # its own seal may be valid, and the next try must not trust it
                    await self._output.delete_files([f"{scratch.name}/{one.report}"])
                raise DamagedFile("is not as it was written")
            return table(data, one.shard.owner(self._run.task_id))
        except DamagedFile as damage:
            raise AccountError(
                f"{scratch.child(one.report)} {damage}, so the output manifest is not published. Resume the run: what "
                "the file recorded is done again."
            ) from None
        except Missing:
            raise AccountError(
                f"The report of shard {one.shard.number} ({one.shard.items} items) is missing in {scratch}, "
                "so the output manifest is not published."
            ) from None


async def _account(plan: Plan, reports: _Reports, claims: Ledger) -> Tally:
    """The tally of the whole run, checked: every planned item has exactly one outcome, in order.

    Adds the result files that must exist to ``claims``.
    """
    tally = Tally()
    expected = 0
    async for numbers, files, part in reports.numbers():
        if numbers != [*range(expected, expected + len(numbers))]:
            wrong, number = next((wanted, found) for wanted, found in enumerate(numbers, expected) if wanted != found)
            raise AccountError(
                f"Item {wrong} was planned next, but item {number} was reported, so the output manifest "
                "is not published."
            )
        expected += len(numbers)
        tally.merge([part])
        claims.claim(files)
    if expected != plan.items or tally.successful + tally.failed != plan.items:
        raise AccountError(
            f"{plan.items} items were planned, but {tally.successful} successful and {tally.failed} failed were "
            f"counted ({expected} reported), so the output manifest is not published."
        )
    return tally


async def _account_for_whole(
    run: Run, plan: Plan, reports: _Reports, output: OutputFolder, earlier: EarlierManifest
) -> None:
    """Check, before anything is published, that the merged manifest has all lines of the earlier one."""
    found = 0
    async with aclosing(_lines(run, plan, reports, output, earlier)) as lines:
        async for _ in lines:
            found += 1
    if found != plan.kept + plan.items:
        raise AccountError(
            f"{plan.kept} SUCCESSFUL lines were to be kept and {plan.items} items were planned, but there are {found} "
            "lines, so the output manifest is not published."
        )


async def _lines(
    run: Run, plan: Plan, reports: _Reports, output: OutputFolder, earlier: EarlierManifest | None, first: int = 0
) -> AsyncGenerator[str]:
    """The lines of the output manifest, in order, from line number ``first`` on."""
    if earlier is None:
        async with aclosing(_outcomes(run, plan, reports, output, first)) as outcomes:
            async for _, line in outcomes:
                yield line
        return
    passed = 0
    async with (
        aclosing(_outcomes(run, plan, reports, output)) as outcomes,
        aclosing(earlier.merged(outcomes)) as merged,
    ):
        async for line in merged:
            passed += 1
            if passed > first:
                yield line


async def _outcomes(
    run: Run, plan: Plan, reports: _Reports, output: OutputFolder, first: int = 0
) -> AsyncGenerator[tuple[Outcome, str]]:
    """The outcome of each item of this run from number ``first`` on, with its line."""
    results = str(output.root.child(run.names.result_folder))
    async for outcomes in reports.outcomes(first, plan.items):
        for outcome in outcomes:
            location = f"{results}/{outcome.result_name}" if outcome.written else ""
            if outcome.message:
                yield outcome, failed_line(outcome.source, outcome.message, location)
            else:
                yield outcome, successful_line(outcome.source, location)


async def _write_parts(
    run: Run, output: OutputFolder, parts: range, lines_of_a_part: int, lines: AsyncGenerator[str]
) -> None:
    """Write some parts of the output manifest in order, from their lines."""
    async with aclosing(lines):
        for part in parts:
            async with output.stream(run.names.manifest(part)) as writer:
                text: list[str] = []
                size = 0
                for _ in range(lines_of_a_part):
                    if not (line := await anext(lines, "")):
                        break
                    text.append(line)
                    size += len(line)
                    if size >= FLUSH_BYTES:
                        await writer.write("".join(text).encode())
                        text, size = [], 0
                await writer.write("".join(text).encode())


def _result(
    run: Run, plan: Plan, done: Sequence[ShardDone], output: OutputFolder, tally: Tally, parts: int, started: float
) -> RunResult:
    manifests = tuple(str(output.root.child(run.names.manifest(part))) for part in range(parts))
    stops = [shard.stopped for shard in done if shard.stopped is not None]
    by_hand = bool(stops) and stops[0].by_hand
    failure = stops[0].failure if stops else ""
    resumable = any(stop.resumable for stop in stops)
    if resumable:
        failure += " What was done is kept: resumed, the run does the rest."
    if not failure and not by_hand and not tally.successful:
        failure = f"No item succeeded: all {plan.items} {'failed' if run.failed_of is None else 'failed again'}."
    return RunResult(
        task_id=run.task_id,
        name=run.service.name,
        manifest=manifests[0],
        manifests=manifests,
        summary=str(output.root.child(run.names.summary)),
        items=plan.kept + plan.items,
        successful=plan.kept + tally.successful,
        failed=tally.failed,
        not_processed=tally.not_processed,
        seconds=_seconds(run, plan, done, started),
        top_causes=tuple(tally.top_causes()),
        warnings=(*run.warnings, *plan.warnings, *tally.notes),
        failure=failure,
        stopped=by_hand,
        resumable=resumable,
    )


def _seconds(run: Run, plan: Plan, done: Sequence[ShardDone], started: float) -> dict[str, float]:
    """Seconds per phase: preparing lasts until the first instance is ready, inferring until the last shard is done.

    They are those of this try of the run, except for the plan, which is made once. Other processes' clocks may differ
    from this one's, so durations from them are capped at the time that has passed here.
    """
    passed = _passed(run, started)
    prepared = [shard for shard in done if shard.preparing_since]
    ended = max((shard.ended_at for shard in done), default=started)
    prepare = infer = 0.0
    if prepared:
        ready = min((shard.ready_at for shard in prepared if shard.ready_at), default=ended)  # if stopped before
        prepare = min(passed, max(0.0, ready - min(shard.preparing_since for shard in prepared)))
        infer = min(passed, max(0.0, ended - max(ready, min(shard.started_at for shard in prepared))))
    return {
        "start": round(run.start_seconds, 3),
        "validate": round(run.validate_seconds, 3),
        "plan": round(plan.seconds, 3),
        "prepare": round(prepare, 3),
        "infer": round(infer, 3),
        "publish": round(clock.now() - started, 3),
    }


def _passed(run: Run, until: float) -> float:
    """Seconds since this try of the run began, by the clock of this process; infinite if unknown."""
    began = progress_of(run.task_id).flow_began_at
    return until - began if began else math.inf


def _summary(run: Run, plan: Plan, done: Sequence[ShardDone], tally: Tally, result: RunResult) -> dict[str, Any]:
    seconds = result.seconds
    return {
        "task_id": run.task_id,
        "name": run.service.name,
        "model": {"name": run.service.model if run.serving != "running" else None, "version": run.model_version,
                  "content": run.model_content or None,
                  "type": run.config.model_type, "serving": run.serving},
        "items": {"planned": result.items, "successful": result.successful, "failed": result.failed,
                  "not_processed": result.not_processed},
        **_of_earlier(run, plan),
        "rows": {"successful": tally.rows - tally.failed_rows, "failed": tally.failed_rows},
        "bytes": {"read": tally.bytes_read, "written": tally.bytes_written},
        "requests": tally.requests,
        "retries": tally.retries,
        "model_server_deaths": _deaths(done),
        "latency_ms": {name: tally.percentile_ms(share)
                       for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0))},
        "seconds": seconds,
        "instance_seconds": {run.flavor.name: round(_instance_seconds(run, done, seconds), 3)},
        "top_causes": list(result.top_causes),
        "shards": len(plan.shards),
        "manifests": list(result.manifests),
        "warnings": list(result.warnings),
        "failure": result.failure,
        "stopped": result.stopped,
        "resumable": result.resumable,
    }  # fmt: skip


def _of_earlier(run: Run, plan: Plan) -> dict[str, Any]:
    if run.service.failed_of is None:
        return {}
    return {"failed_of": redact(run.service.failed_of), "merged_lines": plan.kept}


def _deaths(done: Sequence[ShardDone]) -> int:
    most: dict[int, int] = {}
    for one in done:
        most[one.instance] = max(one.deaths, most.get(one.instance, 0))
    return sum(most.values())


def _instance_seconds(run: Run, done: Sequence[ShardDone], seconds: dict[str, float]) -> float:
    """Instance seconds in total; in distributed mode each instance counts from its own preparation to the end."""
    if not run.is_distributed:
        return run.instances * (seconds["prepare"] + seconds["infer"])
    ended = max((one.ended_at for one in done), default=0.0)
    since: dict[int, float] = {}
    for one in done:
        if one.preparing_since:
            since[one.instance] = min(one.preparing_since, since.get(one.instance, one.preparing_since))
    passed = _passed(run, clock.now())
    return sum(min(passed, max(0.0, ended - begun)) for begun in since.values())


async def first_lines(storage: Storage, manifest: Address, count: int) -> list[str]:
    """The first lines of a published output manifest, with the secret parts of share links redacted."""
    text = b""
    try:
        async for chunk in storage.stream(manifest):
            text += chunk
            if text.count(b"\n") >= count or len(text) > FIRST_BYTES:
                break
    except ObjectError:
        return []
    return [redact(line) for line in text[:FIRST_BYTES].decode("utf-8", "replace").split("\n")[:count] if line]
