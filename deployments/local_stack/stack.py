"""``thresher up``: until stopped, a Prefect server with its pools and console, and a worker for each local one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import requests
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.local_stack.sqlite_cursors import sqlite_url
from deployments.local_stack.stack_lock import announced, answers, ask_stack, claimed
from deployments.local_stack.stack_runs import stopped_runs
from deployments.set_up.form_deployment import CONSOLE_POOL
from deployments.set_up.pools import PoolState, apply_pools, online_workers
from deployments.set_up.zombies import end_orphans
from deployments.terminal.output import error_console, print_text, say
from tasks.clients.processes.keepers import Keepers
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.clients.processes.output_drain import last_bytes
from tasks.clients.surroundings.proxies import spare_loopback
from tasks.domain.api_access import SIGN_IN, SIGN_IN_LINKS, authorization
from tasks.domain.errors import CallError, Problem, ServerError
from tasks.domain.settings import read_settings
from tasks.engine.loop import LoopThread
from tasks.prefect_side.environment import of_a_worker, of_the_server
from tasks.prefect_side.stack_access import is_own, made_password, password_file

HOST = "127.0.0.1"
PORT = 4200
START_SECONDS = 180.0
STOP_SECONDS = 90.0
"""Far more than runs, workers and server need to stop."""
WORKER = "local "
"""Prefix of the names of this stack's workers."""
AGAIN_SECONDS = 3.0
"""Pause before a worker that ended by itself is restarted."""
_POLL_SECONDS = 0.2
_TAIL_LINES = 15
_TAIL_BYTES = 1 << 20


def run_stack(port: int | None = None) -> int:
    """Run the stack until Ctrl-C or SIGTERM; exit code 0. Returns at once if it already runs. Raises ThresherError."""
    if port is not None and not 1 <= port <= 65_535:
        raise CallError([Problem("--port", port, "should be 1 to 65535")])
    spare_loopback()
    with claimed(read_settings().stack, START_SECONDS) as running:
        if running:
            return _again(running, port)
        port = PORT if port is None else port
        url = _api(port)
        _check_free(port)
        try:
            LoopThread("thresher-stack").run_blocking(_run(url, port), STOP_SECONDS)
        except KeyboardInterrupt:
            say("Stopped: no process is left.")
    return 0


def _again(url: str, port: int | None) -> int:
    """Apply the pool files again to the stack that already runs; exit code 0."""
    password = made_password(read_settings().stack)
    with temporary_settings(updates={PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password}):
        apply_pools()
    if port is not None and url != _api(port):
        say(f"Runs already at {_ui(url)}; --port is not used.")
    say("Runs already; the pool files were applied again.")
    _print_address(url, password)
    return 0


async def _run(url: str, port: int) -> None:
    folder = read_settings().stack
    password = made_password(folder)
    # Prefect's settings are local to a context, and this is another thread.
    with temporary_settings(updates={PREFECT_API_URL: url, PREFECT_API_AUTH_STRING: password}):
        say("Starting the Prefect server ...")
        command = ("tasks.prefect_side.prefect_app", str(port))
        environment = of_the_server(folder, url, password, sqlite_url(folder / "prefect" / "prefect.db"))
        async with _guarded("server", command, folder, environment) as server:
            if not await _until(partial(asyncio.to_thread, lambda: answers(url) and is_own(url)), server):
                late = f"has not started within {START_SECONDS:g} s"
                how = late if server.running else "has ended while it was starting"
                raise ServerError(f"The Prefect server {how}.{_tail(folder / 'server.log')}")
            pools = await apply_pools()
            await end_orphans(WORKER)  # left by a stack that was killed
            try:
                await _serve(pools, server, folder, url, password)
            finally:
                with suppress(ServerError):
                    await asyncio.shield(end_orphans(WORKER))


async def _serve(pools: list[PoolState], server: GuardedProcess, folder: Path, url: str, password: str) -> None:
    """Keep the workers running until the server ends or this is cancelled."""
    limits = {pool.name: pool.max_runs for pool in pools if _is_local(pool)} | {CONSOLE_POOL: None}
    environment = of_a_worker(folder, url, password)
    keepers = Keepers(
        [partial(_run_worker, name, folder, environment) for name in limits], AGAIN_SECONDS, AGAIN_SECONDS
    )
    try:
        for name in limits:
            if not await _until(partial(online_workers, name), server):
                raise ServerError(f"The worker of {name} has not started.{_tail(folder / f'worker-{name}.log')}")
        with announced(url):
            _greet(pools)
            await asyncio.to_thread(_print_address, url, password)
            await server.ended()
        raise ServerError(f"The Prefect server has ended by itself.{_tail(folder / 'server.log')}")
    finally:
        async with stopped_runs(WORKER, limits):
            await keepers.close()


def _is_local(pool: PoolState) -> bool:
    return pool.kind == "process"


def _api(port: int) -> str:
    return f"http://{HOST}:{port}/api"


def _ui(url: str) -> str:
    return url.removesuffix("/api")


def _check_free(port: int) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((HOST, port))
        except OSError as error:
            raise ServerError(
                f"Port {port} of {HOST} cannot be used ({error}): another program listens there. Take another one with "
                "--port."
            ) from None


async def _until(ready: Callable[[], Awaitable[object]], server: GuardedProcess) -> bool:
    """Wait until ``ready``; False if that takes too long, or if the server ends."""
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while not await ready():
        if not server.running or asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(_POLL_SECONDS)
    return True


async def _run_worker(name: str, folder: Path, environment: Mapping[str, str]) -> None:
    """Run the worker of a work pool until it ends by itself."""
    command = ("prefect", "worker", "start", "--pool", name, "--type", "process", "--name", f"{WORKER}{name}")
    async with _guarded(f"worker-{name}", command, folder, environment) as worker:
        status = await worker.ended()
    say(f"The worker of {name} has ended (status {status}) and is started again.")


@asynccontextmanager
async def _guarded(
    name: str, command: tuple[str, ...], folder: Path, environment: Mapping[str, str]
) -> AsyncIterator[GuardedProcess]:
    """A module run by this Python with arguments. It ends with the block or with this process, however that ends."""
    log = folder / f"{name}.log"
    log.write_bytes(b"")
    module, *arguments = command
    process = await GuardedProcess.start_own(module, arguments, folder=folder, environment=environment, log=log)
    try:
        yield process
    finally:
        await asyncio.shield(process.stop())


def _tail(log: Path) -> str:
    """The last lines of a log, as the end of a message."""
    lines = last_bytes(log, _TAIL_BYTES).decode(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    return "".join(f"\n    {line}" for line in ["Its log says last:", *lines]) if lines else ""


def _greet(pools: list[PoolState]) -> None:
    others = [pool.name for pool in pools if not _is_local(pool)]
    say(f"Pools with a worker here: {', '.join(pool.name for pool in pools if _is_local(pool))}.")
    if others:
        say(f"Pools whose workers run elsewhere: {', '.join(others)}.")
    say(
        "Deploy a service: in the user interface under Deployments, deploy-service; or\n"
        "  thresher deploy deployments/examples/digits.yaml\n"
        "Ctrl-C stops everything.",
    )


def _print_address(url: str, password: str) -> None:
    """Print the address of the user interface and a single-use link that signs a browser in. Raises ServerError."""
    try:
        headers = {"Authorization": authorization(password)}
        made = ask_stack("POST", f"{_ui(url)}{SIGN_IN_LINKS}", headers=headers, timeout=60)
        made.raise_for_status()
        link = str(made.json()["link"])
    except (requests.RequestException, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"The stack at {_ui(url)} makes no link to sign in ({type(error).__name__}).") from None
    error_console().print(
        f"Open this in a browser, once: {_ui(url)}{SIGN_IN}#{link}\n"
        f"It signs you in. Later, or in another browser, the password is what stands in {password_file()}.",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    print_text(f"{_ui(url)}\n")
