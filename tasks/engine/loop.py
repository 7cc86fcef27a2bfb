"""One event loop per process, in a thread of its own: all reading, requests and writing of all shards run on it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import uvloop

P = ParamSpec("P")
T = TypeVar("T")

CANCEL_SECONDS = 30.0
"""How long to wait for cancelled work to end."""


class LoopThread:
    """An event loop (uvloop) that runs in a daemon thread."""

    def __init__(self, name: str) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on this loop and wait for it on the caller's; cancelling the wait cancels the work."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        waiting = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            future.cancel()
            raise

    def begin(self, work: Coroutine[Any, Any, object]) -> None:
        """Run ``work`` on this loop without waiting for it."""
        asyncio.run_coroutine_threadsafe(work, self._loop)

    def run_blocking(self, work: Coroutine[Any, Any, T], cancel_seconds: float = CANCEL_SECONDS) -> T:
        """Run ``work`` on this loop and wait for it, from a thread without an event loop.

        On an interrupt (Ctrl-C) the work is cancelled, and this waits up to ``cancel_seconds`` for its end.
        """
        ended = threading.Event()

        async def watched() -> T:
            try:
                return await work
            finally:
                ended.set()

        future = asyncio.run_coroutine_threadsafe(watched(), self._loop)
        try:
            return future.result()
        except BaseException:
            if not future.done():
                future.cancel()
                ended.wait(cancel_seconds)
            raise


def in_async_code() -> bool:
    """Whether an event loop runs in the caller's thread, so that it must not wait."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


_loops: dict[int, LoopThread] = {}
_lock = threading.Lock()


def engine_loop() -> LoopThread:
    """The engine's event loop in this process, created on first use (and again in a forked process)."""
    with _lock:
        if os.getpid() not in _loops:
            _loops[os.getpid()] = LoopThread("thresher-engine")
        return _loops[os.getpid()]


def on_engine_loop(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Decorator of an async function: code without an event loop calls it, and it runs on the engine's."""

    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> T:
        return engine_loop().run_blocking(function(*arguments, **named))

    return called
