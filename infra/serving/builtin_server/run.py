"""The life of the server's process: listen, load, serve, stop."""

import asyncio
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
import traceback
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from .app import ModelApp, failure
from .http_server import HttpServer
from .loading import Loaded, load_service
from .settings import Settings, StartError, read_settings
from .threads import StartedThreads

HOST = "127.0.0.1"
"""Reachable from this machine only: the server answers every client."""
STOP_SECONDS = 2
"""Time that requests in flight get after SIGTERM."""
EXIT_SECONDS = 0.5
"""Time that the package's own threads and exit handlers get at the very end."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)

_log = logging.getLogger("model_server")


def main() -> int:
    """Serve the package in the current folder until SIGTERM or SIGINT.

    Returns the exit code: 0 after a signal, 1 with the reason as last line on standard error if it cannot start.
    """
    _prepare_output()
    for stop_signal in STOP_SIGNALS:  # before the loop takes over the signals, and after its end
        signal.signal(stop_signal, lambda *_: sys.exit(0))
    code = 0
    loop = asyncio.new_event_loop()
    try:
        settings = read_settings(Path.cwd())
        # Bound here, so that a port in use is reported before the model loads, which may take minutes.
        with _listen(settings.port) as listener:
            loop.run_until_complete(_serve(settings, listener, loop))
    except StartError as error:
        code = 1
        print("model server: cannot start: %s" % error, file=sys.stderr)
    except SystemExit:
        pass
    except Exception:
        code = 1
        traceback.print_exc()
    _leave_soon(code)
    return code


async def _serve(settings: Settings, listener: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
    """Serve until the process gets a stop signal. Raises StartError if the model cannot be loaded."""
    threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="model")
    app = ModelApp(settings, threads, loop)
    server = HttpServer(loop, app, failure)
    await server.listen(listener)
    stopped: "asyncio.Future[None]" = loop.create_future()

    def stop() -> None:
        if not stopped.done():
            stopped.set_result(None)

    for stop_signal in STOP_SIGNALS:
        loop.add_signal_handler(stop_signal, stop)
    loading = asyncio.ensure_future(_load(settings, app, threads, loop))
    await asyncio.wait([stopped, loading], return_when=asyncio.FIRST_COMPLETED)
    if loading.done() and loading.exception() is None:
        await stopped
    await server.stop(STOP_SECONDS, "the model server is stopping")
    threads.shutdown(wait=False)
    if loading.done():
        await loading
    else:
        loading.cancel()


async def _load(settings: Settings, app: ModelApp, threads: Executor, loop: asyncio.AbstractEventLoop) -> None:
    # In the threads that will run the model: some libraries tie a model to the thread that loaded it.
    app.loaded = await loop.run_in_executor(threads, _loaded, settings, app.started)


def _loaded(settings: Settings, started_threads: StartedThreads) -> Loaded:
    # Before Python 3.9 an executor's threads are daemons, which those would inherit that the package starts.
    threading.current_thread()._daemonic = False  # type: ignore[attr-defined]
    started = time.monotonic()
    _log.info("loading model %r from %s", settings.model_name, settings.folder)
    loaded = load_service(settings, started_threads)
    _log.info(
        "model %r is ready after %.2f s: %s, %d thread(s), http://%s:%d",
        *(settings.model_name, time.monotonic() - started, type(loaded.service).__name__, settings.threads),
        *(HOST, settings.port),
    )
    return loaded


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Otherwise a server that has just stopped leaves its port unusable for a minute.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise StartError("cannot listen on %s:%d: %s" % (HOST, port, error.strerror or error)) from None
    return listener


def _prepare_output() -> None:
    """Flush every complete line of output, whatever its characters; log INFO and above."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):  # not reconfigured: Python 3.6 cannot
            whole = io.TextIOWrapper(stream.detach(), "utf-8", "backslashreplace", line_buffering=True)
            setattr(sys, name, whole)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")


def _leave_soon(code: int) -> None:
    """End the process even if a request still runs in a thread, or the package's threads never end."""

    def leave() -> None:
        sys.stdout.flush()
        os._exit(code)

    timer = threading.Timer(EXIT_SECONDS, leave)
    timer.daemon = True
    timer.start()
