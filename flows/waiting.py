"""Waiting for mapped tasks without blocking the flow's event loop, so that a signal is heard at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar

from prefect.futures import PrefectFuture

T = TypeVar("T")


async def finished(futures: Sequence[PrefectFuture[T]]) -> list[T]:
    """The results of tasks, in order, when all have ended. Raises the first failure, once all have ended."""
    loop = asyncio.get_running_loop()
    left = len(futures)
    all_ended = asyncio.Event()

    def ended(_: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            all_ended.set()

    for future in futures:
        future.add_done_callback(lambda done: loop.call_soon_threadsafe(ended, done))
    if futures:
        await all_ended.wait()
    return [future.result() for future in futures]
