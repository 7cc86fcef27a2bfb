"""``thresher try``: a service's first items or rows, sent to one instance; nothing is written to the output."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from deployments.models.starting import started
from deployments.models.trial import Exchange, Trial, send
from deployments.one_run.validation import PATIENCE_SECONDS, checked_run
from deployments.templates.known_pools import pools_to_run_in
from tasks.clients.instances import launcher
from tasks.clients.instances.launcher import Server
from tasks.clients.instances.running_server import RunningServer
from tasks.clients.model_http.model_server import ModelClient
from tasks.clients.packages.model_store import check_content
from tasks.clients.packages.packages import local_copy
from tasks.clients.processes.devices import device_kind, devices, lease
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain.errors import ContentError, DownloadError, ItemError, Problem, RowError, SpecificationError
from tasks.domain.file_request import file_request
from tasks.domain.header import TableMapping
from tasks.domain.instance import GivenEnvironment, Limits, device_variables
from tasks.domain.item import Item
from tasks.domain.masking import Masker
from tasks.domain.paths import parse_address, redact_source
from tasks.domain.request import Body, row_body
from tasks.domain.run import Run
from tasks.domain.settings import Settings, read_settings
from tasks.engine.items import refusal
from tasks.engine.loop import on_engine_loop
from tasks.engine.planning import Planner
from tasks.engine.rows import read_rows
from tasks.prefect_side.blocks import resolved_environment
from tasks.prefect_side.storage_keys import storage_keys


@dataclass
class _First:
    """The first items or rows of a service: those that can be sent, and what is wrong with the others."""

    bodies: list[tuple[str, Body]] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.bodies) + len(self.refused)


@on_engine_loop
async def try_service(fields: dict[str, Any], count: int) -> Trial:
    """Send the first ``count`` items of a service, or rows of its first tables, to one instance.

    Raises SpecificationError with every problem, ModelServerError if the model server does not start.
    """
    if count < 1:
        raise SpecificationError([Problem("--items", count, "should be a number from 1 on")])
    settings = read_settings()
    pools, keys = await pools_to_run_in(fields, settings), await storage_keys(settings)
    run = await checked_run(fields, settings, keys, pools)
    async with open_storage(settings, keys, PATIENCE_SECONDS) as storage:
        first = await _first(run, settings, storage, count)
        given = await resolved_environment(run.service)
        made = Trial(run.package or run.service.model, run.model_version, run.serving, warnings=[*run.warnings])
        made.exchanges += [Exchange(item, "", "", "", "", error=error) for item, error in first.refused]
        if first.bodies:
            async with _instance(run, settings, storage, given, made) as (url, server):
                client = ModelClient(
                    url, run.api.method, run.api.url,
                    run.service.request_timeout_seconds or settings.request_timeout_seconds, settings.max_answer_bytes,
                    headers=given.headers, explains=run.serving == "built-in",
                )  # fmt: skip
                await send(made, client, run.api, first.bodies, server, Masker([*storage.secrets, *given.secrets]))
    return made


@asynccontextmanager
async def _instance(
    run: Run, settings: Settings, storage: Storage, given: GivenEnvironment, made: Trial
) -> AsyncIterator[tuple[str, Server | None]]:
    """The address of an instance, and its model server unless that runs already."""
    began = time.monotonic()
    if run.serving == "running":
        server = RunningServer(run.service.model.split()[0], run.config.health, run.api.url, given.headers)
        if detail := await server.ask():
            raise server.error(detail)
        yield server.address, None
        return
    if run.serving == "sidecar":
        expected = "its image runs in the pods of its pool only: start a run with few items"
        raise SpecificationError([Problem("model", run.service.model, expected)])
    assert run.package is not None
    folder = await local_copy(storage, run.package, settings.cache)
    if run.model_content:
        await check_content(storage, run.package, folder, run.model_content)
    flavor = run.flavor
    launch = await launcher.prepare(
        run.serving, run.config, folder, run.model_name, given.values, settings, Limits.of(flavor),
        loosen=run.service.loosen, accelerators=flavor.accelerators,
    )  # fmt: skip
    made.warnings += launch.warnings
    there = devices(settings.devices)
    leased = await lease(flavor.accelerators, there, settings.cache / "devices", flavor.name)
    try:
        visible = device_variables(leased.devices, device_kind())
        launch = replace(
            launch, environment={**launch.environment, **visible}, headers=given.headers, secrets=given.secrets
        )
        async with started(launch, run.config.health, run.service.timeout_minutes * 60) as instance:
            made.start_seconds = round(time.monotonic() - began, 3)
            yield instance.url, instance
    finally:
        leased.close()


async def _first(run: Run, settings: Settings, storage: Storage, count: int) -> _First:
    found = _First()
    table = TableMapping.of_service(run.service, run.rule) if run.rule is not None else None
    planner = Planner(storage, parse_address(run.service.input_path), run.failed_of)
    try:
        async with aclosing(planner.items()) as items:
            async for item in items:
                await _add(found, run, settings, storage, item, table, count)
                if found.count >= count:
                    break
    except ObjectError as error:
        raise SpecificationError([Problem("input_path", run.service.input_path, error.cause)]) from None
    if not found.count:
        raise SpecificationError([Problem("input_path", run.service.input_path, "there is no item in it")])
    return found


async def _add(
    found: _First, run: Run, settings: Settings, storage: Storage, item: Item, table: TableMapping | None, count: int
) -> None:
    source = redact_source(item.source)
    try:
        if item.error:
            raise ItemError(item.error)
        address = parse_address(item.address)
        if wrong := refusal(address.name, item.size, settings.max_item_bytes, table=table is not None):
            raise ContentError(wrong)
        try:
            data = await storage.read(address, settings.max_item_bytes, item.size, item.version)
        except ObjectError as error:
            raise DownloadError(error.cause) from None
        if table is not None:
            await _add_rows(found, settings, source, data, table, count)
        else:
            form = file_request(run.api, run.serving)
            assert form is not None
            found.bodies.append((source, form.body(address.name, data)))
    except ItemError as error:
        found.refused.append((source, str(error)))


async def _add_rows(
    found: _First, settings: Settings, source: str, data: bytes, table: TableMapping, count: int
) -> None:
    reader = await read_rows(table, data, settings)
    mapping, _ = table.of(reader.names())
    number = 0
    while found.count < count and (batch := reader.take(count - found.count)) is not None:
        for at, (cells, line) in enumerate(zip(batch.cells, batch.lines, strict=True)):
            number += 1
            name = f"{source}, row {number}"
            try:
                if (fault := batch.faults.get(at)) is not None:
                    raise mapping.row_fault(fault, line)
                found.bodies.append((name, row_body(mapping.request([mapping.row_text(cells, line)]))))
            except RowError as error:
                found.refused.append((name, str(error)))
