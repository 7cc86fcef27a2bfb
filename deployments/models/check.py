"""``thresher models check``: what is wrong with a package, what is only odd, and what it will be served with."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.models.package_source import PackageSource, find_package
from tasks.clients.packages.package_code import MAX_CODE_BYTES, code_needs, read_base_lists
from tasks.clients.packages.package_files import name_problem, package_files
from tasks.clients.packages.packages import holder_of, raw_config
from tasks.clients.packages.pythons import interpreter_for, own_interpreter
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.storage import Storage, open_storage
from tasks.domain.config_file import parse_config
from tasks.domain.errors import ModelServerError, Problem, SpecificationError, StorageError
from tasks.domain.file_request import takes_file
from tasks.domain.lenient_json import line_at, lines_of
from tasks.domain.mapping import Mapping as RowMapping
from tasks.domain.mapping import generate
from tasks.domain.package import BOOT_FILE, CUSTOM_SERVICE, REQUIREMENTS, Api, PackageConfig, Serving, serving_of
from tasks.domain.package_imports import modules_of
from tasks.domain.paths import Address
from tasks.domain.runtime import parse_runtime
from tasks.domain.service_class import service_classes
from tasks.domain.settings import Settings, read_settings
from tasks.engine.checking import ANSWER_SECONDS, check_api
from tasks.engine.loop import on_engine_loop
from tasks.prefect_side.storage_keys import storage_keys

_PATH = re.compile(r"\w[\w-]*(?:\[\d+\]|\.[A-Za-z_][\w-]*)*")
_COLUMNS_SHOWN = 8
_LINE = re.compile(r"\bline (\d+)\b")
_BASES = "one class must derive from a base class, such as SingleNodeService of model_service.model_service"


@dataclass(frozen=True)
class Finding:
    """One sentence about a package: its file, and the line if it has one."""

    file: str
    line: int | None
    message: str

    @property
    def place(self) -> str:
        """As in ``config.json:12``."""
        return self.file if self.line is None else f"{self.file}:{self.line}"


@dataclass
class PackageCheck:
    """The findings about a package."""

    package: str
    wrong: list[Finding] = field(default_factory=list)
    """Why it cannot be served."""
    odd: list[Finding] = field(default_factory=list)
    """What is served otherwise than the package says, or will probably fail."""
    model_type: str | None = None
    serving: str | None = None
    runtime: str | None = None
    python: str | None = None
    """The Python that serves it; None if this machine has none, or the package starts its own."""
    requests: list[str] = field(default_factory=list)
    requirements: list[list[str]] = field(default_factory=list)
    """Its dependencies, by installer step."""
    base_packages: list[str] = field(default_factory=list)
    """Packages of the base list that are installed because its code imports them."""
    unprovided: list[str] = field(default_factory=list)
    """Modules that its code imports and nothing provides."""

    @property
    def usable(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong


@on_engine_loop
async def check_package(given: str, version: str | None = None) -> PackageCheck:
    """Check a package without starting it. Raises SpecificationError if there is none there, StorageError."""
    settings = read_settings()
    async with open_storage(settings, await storage_keys(settings), ANSWER_SECONDS) as storage:
        source = await find_package(storage, settings, given, version)
        return await _Checking(storage, settings, source).all()


class _Checking:
    def __init__(self, storage: Storage, settings: Settings, source: PackageSource) -> None:
        self._storage = storage
        self._settings = settings
        self._source = source
        self._lines: Mapping[str, int] = {}
        self._name = "config.json"
        self._found = PackageCheck(str(source.folder))

    async def all(self) -> PackageCheck:
        found, folder = self._found, self._source.folder
        try:
            raw, address = await raw_config(self._storage, folder)
        except SpecificationError as error:
            found.wrong += [Finding(self._name, None, one.expected) for one in error.problems]
            return found
        holder = holder_of(folder, address)
        inside = "" if holder == folder else "model/"
        self._name = f"{inside}config.json"
        try:
            config = parse_config(raw, self._name)
        except SpecificationError as error:
            self._lines = _lines(raw)
            found.wrong += [self._of_config(one) for one in error.problems]
            return found
        self._lines = lines_of(raw)
        found.model_type = config.model_type
        found.odd += [self._in_config(part) for part in config.passed_over]
        found.odd += [
            Finding(self._name, self._line_of(config, sentence.partition(" ")[0]), f"dependencies: {sentence}")
            for sentence in config.named_twice
        ]
        if self._source.is_local:
            try:
                await asyncio.to_thread(package_files, Path(folder.path))
            except SpecificationError as error:
                found.odd += [Finding(str(one.value), None, f"{one.expected}: it cannot be registered")
                              for one in error.problems]  # fmt: skip
        async with self._code(holder) as local:
            files = {path.name for path in local.iterdir()}
            serving = self._serving(config, files)
            for api in (api for api in config.apis if api.carries_body):
                await self._api(config, api)
            if not any(api.carries_body for api in config.apis):
                found.wrong += [Finding(self._name, line_at("apis", self._lines), "no API of it takes a request body")]
            if serving == "built-in":
                await self._python(config)
                await asyncio.to_thread(self._customize_service, local, config, inside)
            elif serving == "boot-file" and REQUIREMENTS in files:
                found.python = str(own_interpreter())
                found.requirements = [["-r", REQUIREMENTS]]
        return found

    def _serving(self, config: PackageConfig, files: set[str]) -> Serving | None:
        found = self._found
        try:
            found.serving = serving = serving_of(config, files, "")
        except SpecificationError as error:
            try:
                found.serving = serving_of(config, files, "", in_pods=True)
            except SpecificationError:
                found.wrong += [self._in_config(one.expected, "health.protocol" if "health" in one.expected else "")
                                for one in error.problems]  # fmt: skip
                return None
            found.odd.append(
                self._in_config(f"{error.problems[0].expected}", "swr_location"),
            )
            return "sidecar"
        return serving

    async def _api(self, config: PackageConfig, api: Api) -> None:
        problems, warnings = await check_api(config, api.url, self._settings)
        at = f"apis[{config.apis.index(api)}]"
        where = f"{at}.request" if f"{at}.request" in self._lines else at
        self._found.wrong += [self._in_config(one.expected, where) for one in problems]
        self._found.odd += [self._in_config(one, where) for one in warnings if not one.startswith("config.json: ")]
        if not problems:
            self._found.requests.append(f"{api.method} {api.url}: {_request(api)}")

    async def _python(self, config: PackageConfig) -> None:
        found, settings = self._found, self._settings
        found.runtime = config.runtime
        try:
            python, warnings = await interpreter_for(
                parse_runtime(config.runtime), settings.pythons, loosen=settings.loosen
            )
        except ModelServerError as error:
            found.wrong.append(self._in_config(str(error), "runtime"))
            return
        found.python = f"{python}, {python.path}"
        found.odd += [self._in_config(one, "runtime") for one in warnings]

    def _customize_service(self, local: Path, config: PackageConfig, inside: str) -> None:
        found, file = self._found, f"{inside}{CUSTOM_SERVICE}"
        found.requirements = config.requirements
        if (local / REQUIREMENTS).is_file():
            found.requirements = [*found.requirements, ["-r", REQUIREMENTS]]
        try:
            source = (local / CUSTOM_SERVICE).read_bytes()
            classes = service_classes(source, modules_of([path.name for path in local.iterdir()]))
        except SyntaxError as error:
            found.wrong.append(Finding(file, error.lineno, f"is not valid Python: {error.msg}"))
            return
        except (OSError, ValueError, RecursionError, MemoryError) as error:
            found.wrong.append(Finding(file, None, f"cannot be read as Python: {error}"))
            return
        if classes is not None and not classes:
            found.wrong.append(Finding(file, None, f"defines no service: {_BASES}"))
        elif classes is not None and len(classes) > 1:
            names = ", ".join(one.name for one in classes)
            expected = f"defines {len(classes)} services ({names}): exactly one is needed"
            found.wrong.append(Finding(file, classes[1].line, expected))
        needs = code_needs(local, config, read_base_lists(self._settings.base_packages))
        found.base_packages, found.unprovided = needs.base, list(needs.unprovided)
        found.odd += [
            Finding(
                f"{inside}{name}", line, f"imports {module}: not in the package, its dependencies, the base list of "
                f"{config.model_type} or the built-in model server; the model will not start unless one of its "
                "dependencies brings it",
            )
            for module, (name, line) in needs.unprovided.items()
        ]  # fmt: skip

    @asynccontextmanager
    async def _code(self, holder: Address) -> AsyncIterator[Path]:
        """A folder with the package's code: its own if it is local, else with an empty file for each other file."""
        if holder.scheme == "local":
            yield Path(holder.path)
            return
        with tempfile.TemporaryDirectory(prefix="thresher-check-") as made:
            try:
                async for name, size, _ in self._storage.list(holder):
                    if not name_problem(name):
                        read = name.endswith((".py", ".txt")) and size <= MAX_CODE_BYTES
                        path = Path(made, name)
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(await self._storage.read(holder.child(name)) if read else b"")
            except ObjectError as error:
                raise StorageError(f"The model package {holder} cannot be read: {error.cause}") from None
            yield Path(made)

    def _of_config(self, problem: Problem) -> Finding:
        path = problem.field.removeprefix(self._name).removeprefix(": ")
        line = line_at(path, self._lines)
        if line is None and (named := _LINE.search(problem.expected)):
            line = int(named[1])
        return Finding(self._name, line, str(Problem(path, problem.value, problem.expected)))

    def _in_config(self, sentence: str, path: str = "") -> Finding:
        """A sentence about config.json; without a path its first word may be one."""
        if not path and (named := _PATH.match(sentence)):
            path = named[0]
        return Finding(self._name, line_at(path, self._lines), sentence)

    def _line_of(self, config: PackageConfig, package: str) -> int | None:
        """The line of the last requirement of a Python package."""
        places = [
            f"dependencies[{number}].packages[{at}]"
            for number, step in enumerate(config.dependencies)
            for at, one in enumerate(step.packages)
            if one.package_name.lower() == package
        ]
        return line_at(places[-1] if places else "dependencies", self._lines)


def _lines(raw: bytes) -> Mapping[str, int]:
    try:
        return lines_of(raw)
    except (ValueError, RecursionError):
        return {}


def _request(api: Api) -> str:
    if takes_file(api):
        return f"a file as {api.file_leaf!r}" if api.file_leaf else "a file, in Base64"
    fields = RowMapping(generate(api.request.data)).fields
    named = ", ".join(f"{one.name} ({one.type})" for one in fields[:_COLUMNS_SHOWN])
    more = ", ..." if len(fields) > _COLUMNS_SHOWN else ""
    return f"rows of {len(fields)} column{'s' if len(fields) != 1 else ''}: {named}{more}"


def as_json(found: PackageCheck) -> dict[str, Any]:
    """The findings as plain JSON values."""
    return {
        "package": found.package, "usable": found.usable, "model_type": found.model_type, "serving": found.serving,
        "runtime": found.runtime, "python": found.python, "requests": found.requests,
        "requirements": found.requirements, "base_packages": found.base_packages, "unprovided": found.unprovided,
        "wrong": [vars(one) for one in found.wrong], "odd": [vars(one) for one in found.odd],
    }  # fmt: skip


def as_text(found: PackageCheck) -> str:
    """The findings for people."""
    rows = [("package", found.package), ("type", found.model_type), ("served by", _SERVED.get(found.serving or ""))]
    rows += [("runtime", found.runtime), ("python", found.python)]
    rows += [("request" if not number else "", one) for number, one in enumerate(found.requests)]
    rows += [("installs" if not number else "", " ".join(step)) for number, step in enumerate(found.requirements)]
    rows.append(("base list", " ".join(found.base_packages)))
    lines = [f"{name:10}{value}" for name, value in rows if value]
    for title, findings in (("wrong", found.wrong), ("odd", found.odd)):
        if findings:
            lines += ["", title, *(f"  {one.place}: {' '.join(one.message.split())}" for one in findings)]
    return "\n".join([*lines, "", _conclusion(found.wrong, found.odd), ""])


_SERVED = {
    "built-in": "the built-in model server",
    "boot-file": BOOT_FILE,
    "sidecar": "the image of swr_location, on pools of containers",
}


def _conclusion(wrong: Sequence[Finding], odd: Sequence[Finding]) -> str:
    if wrong:
        return "The package cannot be served."
    return f"The package can be served{'; see what is odd.' if odd else '.'}"
