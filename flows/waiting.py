"""Waiting for mapped tasks without blocking the flow's event loop, so that a signal is handled at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect.futures import PrefectFuture


async def finished(futures: Sequence[PrefectFuture[Any]]) -> list[Any]:
    """The results of tasks, in order, when all have ended. Raises the first failure, once all have ended."""
    loop = asyncio.get_running_loop()
    left = len(futures)
    all_ended = asyncio.Event()

    def ended() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            all_ended.set()

    def tell(_: PrefectFuture[Any]) -> None:
        loop.call_soon_threadsafe(ended)

    for future in futures:
        future.add_done_callback(tell)
    if futures:
        await all_ended.wait()
    return [future.result() for future in futures]
