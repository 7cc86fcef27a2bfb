"""The ties to private parts of libraries: each is where it was, and each is listed in prefect_side/internals.py."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import inspect
import io
import logging
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from rich.console import Console

from tasks.prefect_side import internals

ROOT = Path(__file__).parents[2]
PRODUCT = [path for room in ("deployments", "flows", "tasks") for path in sorted((ROOT / room).glob("**/*.py"))]
PUBLIC = {"_replace", "_asdict", "_exit"}
"""Of named tuples and os, which document them."""


def private_names(path: Path) -> set[str]:
    """The private attributes and modules that a file takes from elsewhere."""
    own, used = set(PUBLIC), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            own.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            own.add(node.id)
        elif isinstance(node, ast.Attribute):
            of_itself = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
            (own if of_itself else used).add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module:
            used |= set(node.module.split("."))
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
            used |= {one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)}
    return {name for name in used - own if re.match(r"_[a-z]|__class__", name)}


def test_ties__are_all_listed_with_the_module_that_has_them() -> None:
    rows = [line for line in (internals.__doc__ or "").splitlines() if line.startswith("| ")]
    unlisted = []
    for path in PRODUCT:
        place = str(path.relative_to(ROOT)).removeprefix("tasks/").removesuffix(".py")
        listed = {name for row in rows if f"`{place}`" in row for name in re.findall(r"\b_\w+", row)}
        if place != "prefect_side/internals" and (missing := private_names(path) - listed):
            unlisted.append((place, missing))
    assert unlisted == []
    places = {name for row in rows[1:] for name in re.findall(r"`(\w+(?:/\w+)+)`", row)}
    assert {one for one in places if not any((ROOT / up / f"{one}.py").exists() for up in ("", "tasks"))} == set()


def test_prefects_client__sends_one_request_without_its_retries() -> None:
    from prefect.client.orchestration import PrefectClient

    asked: list[httpx.Request] = []

    def busy(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(503, headers={"Retry-After": "0"})

    async def work() -> int:
        settings = {"transport": httpx.MockTransport(busy)}
        async with PrefectClient("http://there/api", httpx_settings=settings, server_type=None) as client:
            return (await internals.answer_once(client, "PATCH", "/flow_runs/1/labels", json={"a": 1})).status_code

    assert asyncio.run(work()) == 503
    (request,) = asked
    assert (request.method, request.url.path) == ("PATCH", "/api/flow_runs/1/labels") and b'"a"' in request.content


@pytest.mark.parametrize("busy", [3, 9])
def test_prefects_client__is_asked_again_soon_by_a_run_that_meets_a_busy_server(busy: int) -> None:
    from prefect.client.orchestration import PrefectClient

    asked: list[httpx.Request] = []

    def free_at_last(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(503, headers={"Retry-After": "0"}) if len(asked) <= busy else httpx.Response(200, json=7)

    async def work() -> object:
        settings = {"transport": httpx.MockTransport(free_at_last)}
        async with PrefectClient("http://there/api", httpx_settings=settings, server_type=None) as client:
            return (await internals.answer_soon(client, "GET", "/flow_runs/1")).json()

    assert asyncio.run(work()) == 7 and len(asked) == busy + 1


def test_prefect__ships_the_templates_of_all_kinds_of_workers() -> None:
    for collection, kind in (
        ("prefect", "process"),
        ("prefect-docker", "docker"),
        ("prefect-kubernetes", "kubernetes"),
    ):
        template = internals.shipped_workers()[collection][kind]["default_base_job_configuration"]
        assert set(template) == {"job_configuration", "variables"}


def test_prefect__takes_its_integrations_from_where_they_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect._internal.plugins import collections

    monkeypatch.setattr(collections, "_collections", None)
    internals.without_integrations()
    assert collections.load_prefect_collections() == {}


def test_console__falls_silent_without_a_reader() -> None:
    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

    console = Console(file=Gone())
    internals.never_exit(console)
    console.print("said")
    assert console.quiet


def test_prefects_handler__has_a_console_of_its_own() -> None:
    from prefect.logging.handlers import PrefectConsoleHandler

    handler = PrefectConsoleHandler()
    internals.never_exit(handler.console)
    assert type(handler.console).on_broken_pipe is not Console.on_broken_pipe


def test_prefects_loggers__have_the_names_that_are_quieted() -> None:
    from prefect.events.worker import EventsWorker
    from prefect.logging import get_logger
    from prefect.logging.loggers import flow_run_logger, task_run_logger

    sources = inspect.getsource(flow_run_logger), inspect.getsource(task_run_logger)
    for name, source in zip(internals.RUN_LOGGERS, sources, strict=True):
        assert f'"{name}"' in source
    assert EventsWorker.__name__ == internals.EVENTS_LOGGER
    assert get_logger("flow_runs").name == internals.RUN_LOGGERS[0]


def test_prefects_texts__begin_as_they_are_recognized(monkeypatch: pytest.MonkeyPatch) -> None:
    import prefect
    from prefect.context import root_settings_context
    from prefect.task_engine import run_task_async

    monkeypatch.setenv("PREFECT_HOME", "/proc/nope")
    with pytest.warns(UserWarning, match=f"^{internals.NO_HOME}"):
        root_settings_context()
    assert f'print(f"{internals.NO_PLUGINS}: ' in inspect.getsource(prefect)
    assert f"coroutine '{run_task_async.__qualname__}' was never awaited" == internals.NEVER_AWAITED


def test_prefects_flow__returns_with_options_a_flow_that_can_be_made_callable() -> None:
    from flows.batch_service import batch_service
    from flows.calling import CallableFlow

    changed = batch_service.with_options(retries=1)
    assert type(changed) is CallableFlow and set(vars(changed)) == set(vars(batch_service)) and changed.retries == 1


def test_prefects_settings__of_all_threads_are_in_one_place() -> None:
    from prefect import context
    from prefect.server.api.server import SubprocessASGIServer

    assert isinstance(context.GLOBAL_SETTINGS_CONTEXT, context.SettingsContext)
    assert "GLOBAL_SETTINGS_CONTEXT" in inspect.getsource(context.SettingsContext.get)
    assert "cls._instances" in inspect.getsource(SubprocessASGIServer.__new__)


def test_prefects_future__gives_that_of_dask() -> None:
    from prefect_dask.task_runners import PrefectDaskFuture

    future = object()
    assert PrefectDaskFuture(task_run_id=uuid4(), wrapped_future=future).wrapped_future is future  # type: ignore[arg-type]


def test_dask__starts_its_http_server_by_the_method_that_is_replaced() -> None:
    from distributed import Scheduler, Worker
    from distributed.http.scheduler.api import CheckIdleHandler

    for kind in (Scheduler, Worker):
        assert "self.start_http_server(" in inspect.getsource(kind)
    assert callable(CheckIdleHandler.get)


def test_dasks_operator__has_its_own_object_of_a_cluster() -> None:
    from dask_kubernetes.operator._objects import DaskCluster

    assert DaskCluster.kind == "DaskCluster" and callable(DaskCluster.create)


def test_s3fs__calls_s3_as_a_client_that_can_be_closed() -> None:
    import s3fs

    filesystem = s3fs.S3FileSystem(asynchronous=True, skip_instance_cache=True)
    assert filesystem._s3 is None and inspect.iscoroutinefunction(filesystem._call_s3)
    assert inspect.getsource(s3fs.S3FileSystem.set_session).count("close_session, self.loop, self._s3creator") == 1


def test_botocores_keys__have_an_end() -> None:
    from botocore.credentials import RefreshableCredentials

    end = datetime.now(UTC) + timedelta(hours=1)
    assert RefreshableCredentials("key", "secret", "token", end, dict, "a test")._expiry_time is end


def test_libraries__log_under_the_names_that_are_quieted() -> None:
    from opentelemetry.exporter.otlp.proto.http import _log_exporter
    from opentelemetry.sdk import _shared_internal

    for module in (_log_exporter, _shared_internal):
        assert logging.getLogger(module.__name__) in vars(module).values()
    named = (ROOT / "deployments/terminal/door.py").read_text()
    for module_name in ("asyncio", "docket", "prefect.plugins", "prefect.server", "aiobotocore", "fsspec", "s3fs"):
        assert f'"{module_name}"' in named and importlib.util.find_spec(module_name) is not None
