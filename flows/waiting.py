"""Waiting for mapped tasks without blocking the flow's event loop, so that a signal is handled at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

from prefect.futures import PrefectFuture


async def finished(futures: Sequence[PrefectFuture[Any]]) -> list[Any]:
    """The results of tasks, in order, when all have ended. Raises the first failure, once all have ended."""
    loop = asyncio.get_running_loop()
    all_ended = [loop.create_future() for _ in futures]
    for future, ended in zip(futures, all_ended, strict=True):
        future.add_done_callback(partial(_tell, loop, ended))
    await asyncio.gather(*all_ended)
    return [future.result() for future in futures]


def _tell(loop: asyncio.AbstractEventLoop, ended: asyncio.Future[None], _: PrefectFuture[Any]) -> None:
    """Called in the task's thread. Nothing waits any longer if the wait was cancelled."""
    loop.call_soon_threadsafe(lambda: None if ended.done() else ended.set_result(None))
