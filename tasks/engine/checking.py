"""Checks whether specification, model, pool and storage agree: all problems at once, or a validated run."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property, partial
from itertools import chain
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tasks.clients.packages.bare_models import find_bare_model, made_package
from tasks.clients.packages.model_store import ModelStore
from tasks.clients.packages.package_code import code_warnings, read_base_lists
from tasks.clients.packages.packages import MAX_CONFIG_BYTES, check_wheels, files_of, read_config
from tasks.clients.packages.pythons import interpreter_for
from tasks.clients.pool_files import read_pools
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.output_folder import OutputFolder
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain import paths
from tasks.domain.config_file import parse_config
from tasks.domain.credentials import Credentials
from tasks.domain.errors import ModelServerError, Problem, SpecificationError, StorageError
from tasks.domain.file_request import left_out, takes_file
from tasks.domain.header import TableMapping
from tasks.domain.headers import looks_secret, plain_text_secrets
from tasks.domain.mapping import generate, walk
from tasks.domain.package import Api, PackageConfig, Serving, serving_of
from tasks.domain.paths import Address, parse_address, redact
from tasks.domain.pool import Pool
from tasks.domain.run import Run
from tasks.domain.running_address import is_running_model
from tasks.domain.runtime import parse_runtime
from tasks.domain.schema_oddities import odd_types, short_arrays
from tasks.domain.service import BatchService, is_package_address
from tasks.domain.settings import Settings
from tasks.domain.specification import parse_service
from tasks.engine.earlier import EarlierManifest
from tasks.engine.planning import first_file

ANSWER_SECONDS = 10.0
"""Longest time for which an unresponsive storage is retried: a user waits to learn that its address is wrong."""

_FIELDS = [field.alias or name for name, field in BatchService.model_fields.items()]


async def check(
    specification: dict[str, Any] | BatchService,
    *,
    task_id: str,
    scheduled_time: datetime,
    settings: Settings,
    credentials: Mapping[str, Credentials],
    pools: Mapping[str, Pool] | None = None,
    known: Sequence[Problem] = (),
) -> Run:
    """Check a specification against everything that it names; nothing is created.

    ``pools`` are the existing resource pools by name, by default those of the administrator's folder. ``known`` are
    problems that were found earlier; they are reported with the others.

    Raises SpecificationError with every problem found: a wrong field does not prevent the checks of the others.
    """
    service, right, problems = parse_service(specification)
    problems += known
    async with open_storage(settings, credentials, ANSWER_SECONDS) as storage:
        found = _Found(right, settings, pools)
        steps = (
            partial(found.model, storage),
            found.api,
            found.pool,
            partial(found.input, storage),
            partial(found.output, storage, task_id, scheduled_time),
        )
        for step in steps:
            try:
                await step()
            except SpecificationError as error:
                problems += error.problems
    if problems or service is None:
        raise SpecificationError(sorted(problems, key=_order))
    return found.run(service, task_id)


async def check_api(config: PackageConfig, request_path: str, settings: Settings) -> tuple[list[Problem], list[str]]:
    """Problems and warnings of one API of a model, whatever service uses it."""
    found = _Found({"model": "", "request_path": request_path}, settings, {}, _config=config)
    try:
        await found.api()
    except SpecificationError as error:
        return [*error.problems], found._warnings
    return [], found._warnings


@dataclasses.dataclass
class _Found:
    """The findings of the checks, made one after the other; a check is skipped if its fields are invalid."""

    _right: Mapping[str, Any]
    _settings: Settings
    _pools: Mapping[str, Pool] | None
    _warnings: list[str] = dataclasses.field(default_factory=list)
    _config: PackageConfig | None = None
    _api: Api | None = None
    _serving: Serving = "built-in"
    _package: Address | None = None
    _bare_model: str | None = None
    _version: str | None = None
    _content: str = ""
    _rule: dict[str, Any] | None = None
    _flavor: Any = None
    _pool: Pool | None = None
    _output: Address | None = None

    def run(self, service: BatchService, task_id: str) -> Run:
        assert self._config is not None and self._api is not None and self._output is not None
        for name in service.plain_text_secrets:
            self._warnings.append(
                f"environment.{name} looks like a secret in plain text; better "
                f"{{{{ prefect.blocks.secret.NAME }}}} and a Prefect Secret block"
            )
        for name in plain_text_secrets(service.headers):
            self._warnings.append(
                f"headers.{name} looks like a secret in plain text, which the Prefect server keeps and shows; better "
                f"{{{{ prefect.blocks.secret.NAME }}}} and a Prefect Secret block"
            )
        if self._serving == "sidecar":
            nor = "next to the results" + (" nor in the log store" if service.runtime_log_output else "")
            self._warnings.append(
                "what the model's image prints is in the log of the container `model` of each pod, not in the Logs tab "
                f"nor {nor}"
            )
        if self._pool is not None and (cluster := self._pool.cluster).address and not cluster.encrypted:
            self._warnings.append(
                f"the Dask scheduler {cluster.address} has no TLS: all that reach it, or a worker of it, can run code "
                "as the user of this run"
            )
        return Run(
            task_id=task_id, service=service, serving=self._serving,
            package=None if self._package is None else str(self._package), bare_model=self._bare_model,
            model_version=self._version, model_content=self._content, config=self._config, request_path=self._api.url,
            rule=self._rule, output=str(self._output), flavor=self._flavor, pool=self._pool,
            warnings=tuple(self._warnings),
        )  # fmt: skip

    async def model(self, storage: Storage) -> None:
        model = self._right.get("model")
        if not isinstance(model, str):
            return
        try:
            await self._model(storage, model)
        except (StorageError, ModelServerError) as error:
            raise SpecificationError([Problem("model", model, str(error))]) from None

    async def _model(self, storage: Storage, model: str) -> None:
        if is_running_model(model):
            self._serving = "running"
            if self._right.get("instances", 1) != 1:
                self._warnings.append("instances is not used: each address in model is one instance")
            for name, _ in chain.from_iterable(parse_qsl(urlsplit(one).query) for one in model.split()):
                if looks_secret(name):
                    self._warnings.append(
                        f"model: {name!r} in the address looks like a secret in plain text, which the Prefect server "
                        "keeps and shows; better in headers, as {{ prefect.blocks.secret.NAME }}"
                    )
            self._config = await self._running_config(storage)
            return
        if self._right.get("running_config", self._right.get("model_config")) is not None:
            raise SpecificationError([Problem("model_config", None, "is for the address of a running server only")])
        if is_package_address(model):
            try:
                folder = parse_address(model)
            except ValueError as error:
                raise SpecificationError([Problem("model", model, str(error))]) from None
            if self._right.get("model_version") is not None:
                expected = "is for models of the model store; a package folder has no versions"
                raise SpecificationError([Problem("model_version", self._right["model_version"], expected)])
        else:
            store = ModelStore(storage, self._settings.model_store)
            version = await store.pick(self._right["model_source"], model, self._right.get("model_version"))
            self._version, folder = version.version, parse_address(version.folder)
            self._content = version.content
        if (bare := await find_bare_model(storage, folder)) is not None:
            loosen = self._right.get("loosen") is True
            folder = parse_address(str(await made_package(storage, bare, self._settings, loosen=loosen)))
            self._bare_model = str(bare.address)
        self._config, self._package = await read_config(storage, folder)
        files = await files_of(storage, self._package)
        self._serving = serving_of(self._config, files, str(self._package), **self._images)
        if self._serving == "built-in":
            await check_wheels(storage, self._package, self._config)
            self._warnings += await code_warnings(
                storage, self._package, self._config, files, read_base_lists(self._settings.base_packages)
            )
            await self._python(self._config)

    async def _python(self, config: PackageConfig) -> None:
        """Refuse a package whose Python this machine lacks, unless its instances are pods: they bring their own."""
        if self._images.get("in_pods"):
            return
        loosen = self._settings.loosen or self._right.get("loosen") is True
        try:
            found = await interpreter_for(parse_runtime(config.runtime), self._settings.pythons, loosen=loosen)
        except ModelServerError as error:
            raise SpecificationError([Problem("model", self._right.get("model"), str(error))]) from None
        self._warnings += found[1]

    @cached_property
    def _there(self) -> Mapping[str, Pool]:
        return read_pools(self._settings.pools) if self._pools is None else self._pools

    @property
    def _images(self) -> dict[str, bool]:
        """Whether the pool runs images of models, and in what."""
        with suppress(SpecificationError):  # reported once, where the pool is checked
            pool = self._there.get(str(self._right.get("resource_pool")))
            if pool is not None:
                return {"in_pods": pool.makes_pods, "in_containers": pool.engine is not None}
        return {}

    async def _running_config(self, storage: Storage) -> PackageConfig:
        given = self._right.get("running_config", self._right.get("model_config"))
        if given is None:
            expected = "is needed: the config.json of the server that runs at the model's address"
            raise SpecificationError([Problem("model_config", None, expected)])
        if isinstance(given, str) and not given.lstrip().startswith("{"):
            try:
                return parse_config(await storage.read(parse_address(given), MAX_CONFIG_BYTES), given, running=True)
            except (ObjectError, ValueError) as error:
                raise SpecificationError([Problem("model_config", given, f"cannot be read: {error}")]) from None
        return parse_config(str(given).encode(), "model_config", running=True)

    async def api(self) -> None:
        if self._config is None:
            return
        self._warnings += [f"config.json: passed over: {redact(part)}" for part in self._config.passed_over]
        asked = self._right.get("request_path")
        try:
            api = self._api = self._config.api(asked)
            if not api.carries_body:
                expected = "the model's config.json should have a method there that carries a body: post, put or patch"
                raise SpecificationError([Problem("request_path", api.url, f"is asked by {api.method}; {expected}")])
        except KeyError:
            there = ", ".join(api.url for api in self._config.apis if api.carries_body)
            others = "; ".join(map(redact, self._config.passed_over))
            expected = f"the model answers at: {there}{f' (passed over: {others})' if others else ''}"
            raise SpecificationError([Problem("request_path", asked, expected)]) from None
        rule = self._right.get("mapping")
        if takes_file(api):
            if rule is not None:
                self._warnings.append("mapping is not used: the model's request is a file")
            optional, required = left_out(api)
            if required:
                expected = (
                    f"its request requires {', '.join(required)} beside the file: give each a const or default in the "
                    "schema of config.json, with which it is sent"
                )
                raise SpecificationError([Problem("model", self._right.get("model"), expected)])
            self._warnings += [
                f"request of the model: {name} has no const or default, and is left out beside the file"
                for name in optional
            ]
            return
        schema = api.request.data
        self._rule = rule if rule is not None else generate(schema)
        self._warnings += [*odd_types(schema), *short_arrays(schema)]
        header = self._right.get("csv_header") == "present"
        table = TableMapping(self._rule, header=header, generated=rule is None)
        mapping = table.by_place
        if not mapping.fields and rule is None and not schema.get("properties"):
            number = self._config.apis.index(api)
            raise SpecificationError([Problem("model", self._right.get("model"), _NO_REQUEST.format(number=number))])
        if not mapping.fields and not table.named_only:
            expected = "no field of the request has a usable index (a whole number from 0), so nothing would be sent"
            raise SpecificationError([Problem("mapping", None, expected)])
        self._warnings += [
            f"mapping: {name} has no {'known type' if name in mapping.of_no_type else 'usable index'} "
            "and is left out of every request"
            for name in mapping.left_out
            if name not in table.named_only
        ]
        known = {tuple(path) for path, _, _ in walk(schema)}
        self._warnings += [
            f"mapping: {field.name} is not a field of the model's request"
            for field in mapping.fields
            if known and field.path not in known
        ]
        rows = self._right.get("rows_per_request")
        if isinstance(rows, int) and rows > 1 and not mapping.takes_many_rows:
            expected = "should be 1 (or auto): the model's request has no array of rows"
            raise SpecificationError([Problem("rows_per_request", rows, expected)])

    async def pool(self) -> None:
        name = self._right.get("resource_pool")
        pools = self._there
        if not isinstance(name, str):
            return
        if name not in pools:
            there = ", ".join(pools) or "none"
            expected = f"there is no such resource pool, contact the administrator; there are: {there}"
            raise SpecificationError([Problem("resource_pool", name, expected)])
        pool = self._pool = pools[name]
        suited = pool.flavors_for(self._config)
        listed = ", ".join(flavor.name for flavor in suited) or f"none of {name}{self._elsewhere(pools)}"
        asked = self._right.get("flavor")
        if asked is None:
            if not suited:
                expected = (
                    f"has no flavor that satisfies the model, contact the administrator; flavors that do: {listed}"
                )
                raise SpecificationError([Problem("resource_pool", name, expected)])
            self._flavor = pool.default_flavor(self._config)
        else:
            self._flavor = pool.flavor(asked)
            if self._flavor is None or self._flavor not in suited:
                what = "does not satisfy the model" if self._flavor else f"is not offered by {name}"
                raise SpecificationError([Problem("flavor", asked, f"{what}; flavors that do: {listed}")])
        if self._serving != "running" and (warning := pool.without_accelerator(self._config, self._flavor)):
            self._warnings.append(warning)

    def _elsewhere(self, pools: Mapping[str, Pool]) -> str:
        """The flavors of all pools that satisfy the model, as the end of a message that one pool has no such flavor."""
        found = {name: pool.flavors_for(self._config) for name, pool in pools.items()}
        detail = [f"{', '.join(one.name for one in flavors)} of {name}" for name, flavors in found.items() if flavors]
        return f", but {'; '.join(detail)}" if detail else ""

    async def input(self, storage: Storage) -> None:
        failed_of = self._right.get("failed_of")
        if isinstance(failed_of, str) and failed_of:
            try:
                await EarlierManifest(storage, parse_address(failed_of)).check()
            except ObjectError as error:
                raise SpecificationError([Problem("failed_of", failed_of, error.cause)]) from None
            return  # the items are those of the manifest
        given = self._right.get("input_path")
        if not isinstance(given, str):
            return
        try:
            await first_file(storage, parse_address(given))
        except ObjectError as error:
            raise SpecificationError([Problem("input_path", given, error.cause)]) from None

    async def output(self, storage: Storage, task_id: str, scheduled_time: datetime) -> None:
        given = self._right.get("output_path")
        if not isinstance(given, str):
            return
        name = str(self._right.get("name"))
        output = parse_address(paths.expand_words(given, task_id=task_id, name=name, scheduled_time=scheduled_time))
        if isinstance(self._right.get("input_path"), str):
            source = parse_address(self._right["input_path"])
            if source.contains(output) or _real(source).contains(_real(output)):
                expected = "should not lie inside the input folder: the next run would read these results"
                raise SpecificationError([Problem("output_path", given, expected)])
        try:
            own = paths.OutputNames(task_id, str(self._right.get("result_folder")))
            names = [found.rstrip("/") for found in await storage.top(output)]
            again = own.scratch in names or own.manifest(0) in names
            strict = self._right.get("result_folder") == "infer-result"
            foreign = [
                found
                for found in names
                if found != own.scratch
                and not (again and own.is_of_this_run(found))
                and (strict or not paths.is_earlier_run(found))
            ]
            if foreign:
                more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
                expected = f"should be an empty folder; it holds {foreign[0]!r}{more}"
                raise SpecificationError([Problem("output_path", given, expected)])
            await OutputFolder(storage, output, paths.OutputNames(task_id).scratch).check_writable()
        except ObjectError as error:
            expected = f"should be a folder that can be written to: {error.cause}"
            raise SpecificationError([Problem("output_path", given, expected)]) from None
        self._output = output


_NO_REQUEST = (
    "apis[{number}].request of its config.json is missing, or has no fields; a model of files has "
    '"apis": [{{"request": {{"Content-type": "multipart/form-data", "data": {{"type": "object", "properties": '
    '{{"images": {{"type": "file"}}}}}}}}}}], one of tables a field of type string, number, integer or boolean there'
)


def _order(problem: Problem) -> int:
    """Position of a problem's field in the contract; problems without a field come first."""
    field = re.split(r"\W", problem.field, maxsplit=1)[0]
    return _FIELDS.index(field) if field in _FIELDS else -1


def _real(address: Address) -> Address:
    """An address; if local, with symbolic links resolved."""
    return dataclasses.replace(address, path=os.path.realpath(address.path)) if address.scheme == "local" else address
