"""The life of the server's process: listen, load, serve, stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from io import TextIOWrapper
from pathlib import Path

import uvicorn
import uvloop
from model_service.model_service import SingleNodeService

from .app import ModelApp
from .loading import load_service
from .settings import Settings, StartError, read_settings
from .threads import StartedThreads

HOST = "127.0.0.1"
"""Reachable from this machine only: the server answers every client."""
KEEP_ALIVE_SECONDS = 120
"""Longer than clients keep an idle connection, so that the server never closes one with a request in flight."""
STOP_SECONDS = 2
"""Time that requests in flight get after SIGTERM."""
EXIT_SECONDS = 0.5
"""Time that the package's own threads and exit handlers get at the very end."""

_log = logging.getLogger("model_server")


def main() -> int:
    """Serve the package in the current folder until SIGTERM or SIGINT.

    Returns the exit code: 0 after a signal, 1 with the reason as last line on standard error if it cannot start.
    """
    _prepare_output()
    # Before uvicorn takes over the signals, and after it hands them back at its end: exit with code 0.
    for stop_signal in (signal.SIGTERM, signal.SIGINT):
        signal.signal(stop_signal, lambda *_: sys.exit(0))
    code = 0
    try:
        settings = read_settings(Path.cwd())
        # Bound here, so that a port in use is reported before the model loads, which may take minutes.
        with _listen(settings.port) as listener:
            uvloop.run(_serve(settings, listener))
    except StartError as error:
        code = 1
        print(f"model server: cannot start: {error}", file=sys.stderr)
    except SystemExit:
        pass
    except Exception:
        code = 1
        traceback.print_exc()
    _leave_soon(code)
    return code


async def _serve(settings: Settings, listener: socket.socket) -> None:
    """Serve until the process gets a stop signal. Raises StartError if the model cannot be loaded."""
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="model")
    app = ModelApp(settings, threads)
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = uvicorn.Server(config)

    async def load() -> None:
        try:
            # In the threads that will run the model: some libraries tie a model to the thread that loaded it.
            app.service = await asyncio.get_running_loop().run_in_executor(threads, _load, settings, app.started)
        except Exception:
            server.should_exit = True
            raise

    loading = asyncio.create_task(load())
    try:
        await server.serve(sockets=[listener])
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    await loading


def _load(settings: Settings, started_threads: StartedThreads) -> SingleNodeService:
    started = time.monotonic()
    _log.info("loading model %r from %s", settings.model_name, settings.folder)
    service = load_service(settings.folder, settings.model_name, started_threads)
    _log.info(
        "model %r is ready after %.2f s: %s, %d thread(s), http://%s:%d",
        *(settings.model_name, time.monotonic() - started, type(service).__name__, settings.threads),
        *(HOST, settings.port),
    )
    return service


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Otherwise a server that has just stopped leaves its port unusable for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError(f"cannot listen on {HOST}:{port}: {error.strerror or error}") from None
    return listener


def _prepare_output() -> None:
    """Flush every complete line of output, whatever its characters; log INFO and above."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _leave_soon(code: int) -> None:
    """End the process even if a request still runs in a thread, or the package's threads never end."""

    def leave() -> None:
        sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(EXIT_SECONDS, leave)
    timer.daemon = True
    timer.start()
