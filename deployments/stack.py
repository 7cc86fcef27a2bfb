"""``thresher up``: a Prefect server, its pools and console, a worker for each of them that is local, until stopped."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import requests
from prefect.settings import PREFECT_API_URL, temporary_settings
from rich.console import Console

from deployments.commands.output import print_text, talk
from deployments.console import CONSOLE_POOL
from deployments.pools import PoolState, apply_pools, online_workers
from deployments.server import stack_file
from deployments.zombies import end_orphans
from tasks.clients.lifeline import GuardedProcess
from tasks.domain.errors import ServerError
from tasks.engine.loop import LoopThread
from tasks.settings import read_settings

HOST = "127.0.0.1"
START_SECONDS = 180.0
WORKER = "local "
"""How the names of this stack's workers begin."""
AGAIN_SECONDS = 3.0
"""A worker that ended by itself is started again after this time."""
_POLL_SECONDS = 0.2
_TAIL_LINES = 15


def run_stack(port: int) -> int:
    """Run the stack until Ctrl-C or SIGTERM; 0. Returns at once if it runs already. Raises ThresherError."""
    console = talk()
    url = f"http://{HOST}:{port}/api"
    with temporary_settings(updates={PREFECT_API_URL: url}):
        if _is_own(url):
            asyncio.run(_applied())
            console.print("Runs already; the pool files were applied again.", highlight=False)
            print_text(f"{_ui(url)}\n")
            return 0
        _check_free(port)
        try:
            LoopThread("thresher-stack").run_blocking(_run(url, port, console))
        except KeyboardInterrupt:
            console.print("Stopped: no process is left.", highlight=False)
    return 0


async def _run(url: str, port: int, console: Console) -> None:
    folder = read_settings().stack
    folder.mkdir(parents=True, exist_ok=True)
    with temporary_settings(updates={PREFECT_API_URL: url}):  # this is another thread
        console.print("Starting the Prefect server ...", highlight=False)
        async with _process("server", ("server", "start", "--host", HOST, "--port", str(port)), folder, url) as server:
            await _until(lambda: _answers(url), server, folder / "server.log", "The Prefect server")
            pools = await _applied()
            await end_orphans(WORKER)  # of a stack that was killed
            try:
                with _said(url):
                    await _serve(pools, server, folder, url, console)
            finally:
                with suppress(ServerError):
                    await asyncio.shield(end_orphans(WORKER))


async def _serve(pools: list[PoolState], server: GuardedProcess, folder: Path, url: str, console: Console) -> None:
    """Keep the workers running until the server ends, or this is cancelled."""
    served = [*(pool.name for pool in pools if _is_local(pool)), CONSOLE_POOL]
    keepers = [asyncio.create_task(_keep_worker(name, folder, url, console)) for name in served]
    try:
        await _until_ready(served, server, folder)
        _greet(url, pools, console)
        await server.ended()
        raise ServerError(f"The Prefect server has ended by itself.{_tail(folder / 'server.log')}")
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


async def _applied() -> list[PoolState]:
    applied: list[PoolState] = await apply_pools()
    return applied


def _is_local(pool: PoolState) -> bool:
    return pool.kind == "process"


def _ui(url: str) -> str:
    return url.removesuffix("/api")


def _is_own(url: str) -> bool:
    """Whether the stack that said that it runs at this address does."""
    try:
        said = json.loads(stack_file().read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(said, dict) and said.get("api") == url and _answers(url)


def _answers(url: str) -> bool:
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{url}/health", timeout=2).ok
    except requests.RequestException:
        return False


def _check_free(port: int) -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ServerError(
                f"Port {port} of {HOST} cannot be used ({error}): another program listens there. Take another one with "
                "--port."
            ) from None


@contextmanager
def _said(url: str) -> Iterator[None]:
    """While it lasts, commands without PREFECT_API_URL find this stack."""
    path = stack_file()
    path.write_text(json.dumps({"api": url, "pid": os.getpid()}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _environment(folder: Path, url: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return own | {
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_API_URL": url,
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
    }


@asynccontextmanager
async def _process(name: str, arguments: tuple[str, ...], folder: Path, url: str) -> AsyncIterator[GuardedProcess]:
    """One of Prefect's own commands, which ends with the block, or with this process however that ends."""
    log = folder / f"{name}.log"
    log.write_bytes(b"")
    command = (sys.executable, "-m", "prefect", *arguments)
    process = await GuardedProcess.start(command, folder=folder, environment=_environment(folder, url), log=log)
    try:
        yield process
    finally:
        await asyncio.shield(process.stop())


async def _until(ready: Callable[[], bool], process: GuardedProcess, log: Path, what: str) -> None:
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while not await asyncio.to_thread(ready):
        late = asyncio.get_running_loop().time() > deadline
        if late or not process.running:
            how = f"has not started within {START_SECONDS:g} s" if late else "has ended while it was starting"
            raise ServerError(f"{what} {how}.{_tail(log)}")
        await asyncio.sleep(_POLL_SECONDS)


async def _until_ready(served: list[str], server: GuardedProcess, folder: Path) -> None:
    """Wait until each of these work pools has a worker."""
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    for name in served:
        while not await online_workers(name):
            if not server.running or asyncio.get_running_loop().time() > deadline:
                log = folder / f"worker-{name}.log"
                raise ServerError(f"The worker of {name} has not started.{_tail(log)}")
            await asyncio.sleep(_POLL_SECONDS)


async def _keep_worker(name: str, folder: Path, url: str, console: Console) -> None:
    """Run the worker of a work pool; started again whenever it ends by itself."""
    arguments = ("worker", "start", "--pool", name, "--type", "process", "--name", f"{WORKER}{name}")
    while True:
        async with _process(f"worker-{name}", arguments, folder, url) as worker:
            status = await worker.ended()
        console.print(f"The worker of {name} has ended (status {status}) and is started again.", highlight=False)
        await asyncio.sleep(AGAIN_SECONDS)


def _greet(url: str, pools: list[PoolState], console: Console) -> None:
    others = [pool.name for pool in pools if not _is_local(pool)]
    console.print(
        f"Pools with a worker here: {', '.join(pool.name for pool in pools if _is_local(pool))}.", highlight=False
    )
    if others:
        console.print(f"Pools whose workers run elsewhere: {', '.join(others)}.", highlight=False)
    console.print(
        "Deploy a service: in the user interface under Deployments, deploy-service; or\n"
        "  thresher deploy deployments/services/digits.yaml\n"
        "Ctrl-C stops everything.",
        highlight=False,
    )
    print_text(f"{_ui(url)}\n")


def _tail(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()[-_TAIL_LINES:]
    except OSError:
        lines = []
    return "".join(f"\n    {line}" for line in ["Its log says last:", *lines]) if lines else ""
