"""``thresher models try``: starts a package once, sends it requests, and shows the answers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from deployments.models.package_source import find_package, of_the_call
from deployments.models.starting import START_SECONDS, started
from tasks.clients.instances import launcher
from tasks.clients.instances.launcher import Server
from tasks.clients.model_http.model_server import ModelClient, RequestFailed
from tasks.clients.packages.packages import files_of, local_copy, read_config
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain.answer import status_error
from tasks.domain.csv_rows import RowReader, csv_text
from tasks.domain.errors import ContentError, Problem, RowError, SpecificationError
from tasks.domain.file_request import file_request, takes_file
from tasks.domain.header import TableMapping
from tasks.domain.mapping import generate
from tasks.domain.masking import Masker
from tasks.domain.package import Api, PackageConfig, Serving, serving_of
from tasks.domain.paths import parse_address
from tasks.domain.request import Body, body_text, row_body
from tasks.domain.service import BatchService
from tasks.domain.settings import Settings, read_settings
from tasks.engine.checking import ANSWER_SECONDS, check_api
from tasks.engine.loop import on_engine_loop
from tasks.engine.table_sampling import look_at_table
from tasks.prefect_side.storage_keys import storage_keys

_SHOWN = 10_000
"""Characters of a request or answer that are shown to people."""


@dataclass
class Exchange:
    """One request, and its answer or why there is none."""

    item: str
    method: str
    path: str
    content_type: str
    body: str
    status: int | None = None
    answer: str = ""
    seconds: float = 0.0
    error: str = ""


@dataclass
class Trial:
    """A package that was started once."""

    package: str
    version: str | None
    serving: str
    start_seconds: float = 0.0
    warnings: list[str] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    output: str = ""
    """The model server's last output, if a request failed."""

    @property
    def succeeded(self) -> bool:
        """Whether every request was answered."""
        return not any(one.error for one in self.exchanges)


@dataclass(frozen=True)
class Tried:
    """What is sent: cells of rows as a line of CSV, and files by their path or address."""

    rows: Sequence[str] = ()
    files: Sequence[str] = ()


@on_engine_loop
async def try_package(
    given: str,
    tried: Tried,
    *,
    version: str | None = None,
    request_path: str | None = None,
    seconds: float = START_SECONDS,
) -> Trial:
    """Start a package and send it requests, made as a service would make them.

    Raises SpecificationError, whose problems are those of the call or of config.json, before anything is started;
    ModelServerError, with the model server's last output, if the package does not start.
    """
    settings = read_settings()
    async with open_storage(settings, await storage_keys(settings), ANSWER_SECONDS) as storage:
        source = await find_package(storage, settings, given, version)
        try:
            config, holder = await read_config(storage, source.folder)
            serving = serving_of(config, await files_of(storage, holder), str(holder))
        except SpecificationError as error:
            raise of_the_call(error) from None
        api = await _api(config, request_path, settings)
        items = await _Bodies(storage, settings, api, serving).all(tried)
        folder = await local_copy(storage, str(holder), settings.cache)
        launch = await launcher.prepare(serving, config, folder, source.name, {}, settings)
        made = Trial(str(source.folder), source.version, serving, warnings=list(launch.warnings))
        began = time.monotonic()
        async with started(launch, config.health, seconds) as server:
            made.start_seconds = round(time.monotonic() - began, 3)
            client = ModelClient(
                server.url, api.method, api.url, settings.request_timeout_seconds, settings.max_answer_bytes,
                explains=serving == "built-in",
            )  # fmt: skip
            await send(made, client, api, items, server, Masker(storage.secrets))
    return made


async def send(
    made: Trial,
    client: ModelClient,
    api: Api,
    items: Sequence[tuple[str, Body]],
    server: Server | None,
    masker: Masker,
) -> None:
    """Send requests one after the other, add them to a trial, and close the client.

    If one fails, a ``server`` that was started is ended after the last one, and its output added: before that, its last
    lines may still be on their way.
    """
    try:
        for item, body in items:
            exchange = Exchange(item, api.method, api.url, body.content_type, body_text(body))
            made.exchanges.append(exchange)
            began = time.monotonic()
            try:
                answer = await client.predict(body)
                exchange.status, exchange.answer = answer.status, _text(answer.data, masker)
            except RequestFailed as failed:
                exchange.error = f"The request failed: {failed.cause}."
                if (refused := failed.answer) is not None:
                    exchange.status, exchange.answer = refused.status, _text(refused.data, masker)
                    if failed.failure.kind == "status":
                        exchange.error = f"{status_error(refused.status, b'', 1, location=refused.location)}."
            exchange.seconds = round(time.monotonic() - began, 3)
    finally:
        await client.close()
    if server is not None and any(exchange.error for exchange in made.exchanges):
        await server.stop()
        made.output = server.tail().strip()


def _text(data: bytes, masker: Masker) -> str:
    try:
        return masker.block(data.decode())
    except UnicodeDecodeError:
        return f"<{len(data)} bytes>"


async def _api(config: PackageConfig, request_path: str | None, settings: Settings) -> Api:
    try:
        api = config.api(request_path)
    except KeyError:
        there = ", ".join(api.url for api in config.apis if api.carries_body)
        raise SpecificationError([Problem("--request-path", request_path, f"the model answers at: {there}")]) from None
    problems, _ = await check_api(config, api.url, settings)
    if problems:
        raise SpecificationError([Problem("", None, f"config.json: {one.expected}") for one in problems])
    return api


class _Bodies:
    """The requests that are sent: as a service would make them."""

    def __init__(self, storage: Storage, settings: Settings, api: Api, serving: Serving) -> None:
        self._storage = storage
        self._settings = settings
        self._form = file_request(api, serving)
        self._takes_file = takes_file(api)
        self._table = None if self._takes_file else TableMapping(generate(api.request.data))

    async def all(self, tried: Tried) -> list[tuple[str, Body]]:
        if not tried.rows and not tried.files:
            raise SpecificationError([Problem(*self._needed)])
        if tried.rows and self._table is None:
            raise SpecificationError([Problem("--row", tried.rows[0], "the model's request is a file: --file PATH")])
        return [
            *[(f"--row {row}", self._row(row, self._table)) for row in tried.rows if self._table is not None],
            *[(file, await self._file(file)) for file in tried.files],
        ]

    @property
    def _needed(self) -> tuple[str, None, str]:
        if self._table is None:
            return "--file", None, "is needed: the model's request is a file"
        fields = self._table.by_place.fields
        columns = ", ".join(f"{one.name} ({one.type})" for one in fields)
        return "--row", None, f"is needed, or --file with rows: the cells of a row, in CSV, are {columns}"

    def _row(self, row: str, table: TableMapping) -> Body:
        mapping = table.by_place
        try:
            reader = RowReader(csv_text(row.encode(), chinese=True), header=False, needed=mapping.columns)
            batch = reader.take(1)
            if batch is None:
                raise ContentError("there is no row in it")
            if (fault := batch.faults.get(0)) is not None:
                raise mapping.row_fault(fault, 1)
            return row_body(mapping.request([mapping.row_text(batch.cells[0], 1)]))
        except (ContentError, RowError) as error:
            raise SpecificationError([Problem("--row", row, str(error))]) from None

    async def _file(self, given: str) -> Body:
        try:
            address = parse_address(given)
            data = await self._storage.read(address, self._settings.max_item_bytes)
        except (ObjectError, ValueError) as error:
            cause = error.cause if isinstance(error, ObjectError) else str(error)
            raise SpecificationError([Problem("--file", given, cause)]) from None
        if self._form is not None:
            return self._form.body(address.name, data)
        assert self._table is not None
        service = BatchService(model="/model", input_path="/in", output_path="/out")
        try:
            look = await look_at_table(service, self._table, data, self._settings)
        except ContentError as error:
            raise SpecificationError([Problem("--file", given, str(error))]) from None
        if look.body is None:
            assert look.refusal is not None
            raise SpecificationError([Problem("--file", given, look.refusal.message)])
        return look.body


def as_json(made: Trial) -> dict[str, Any]:
    """A trial as plain JSON values."""
    return {**asdict(made), "succeeded": made.succeeded}


def as_text(made: Trial) -> str:
    """A trial for people: each request as it was sent, and its answer."""
    version = f", version {made.version}" if made.version else ""
    lines = [f"package   {made.package}{version}", f"started   in {made.start_seconds:g} s, served by: {made.serving}"]
    for one in made.exchanges:
        if not one.method:
            lines += ["", f"refused   {one.item}", one.error]
            continue
        status = f"HTTP {one.status}" if one.status is not None else "none"
        body, answer = _short(one.body.replace("\r\n", "\n")), _short(one.answer.rstrip("\n"))
        lines += [
            "",
            f"request   {one.item}",
            f"{one.method} {one.path}",
            f"Content-Type: {one.content_type}",
            "",
            body,
        ]
        lines += ["", f"answer    {status}, after {one.seconds:.3f} s", answer]
    return "\n".join(lines) + "\n"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}... ({len(text):,} characters)"
