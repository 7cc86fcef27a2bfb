"""A flow on an event loop that plain code can call like a function."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from prefect import Flow

from tasks.embedded_server import start_server


class CallableFlow(Flow[..., Any]):
    """An async flow: awaited in async code, and simply called in code without a running event loop.

    Async, because a synchronous flow run waits about a second for its heartbeat thread to end.
    """

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run the flow: its result, or an awaitable of it if an event loop is running."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            start_server()
            return asyncio.run(super().__call__(*arguments, **named))
        return super().__call__(*arguments, **named)


def callable_flow(**options: Any) -> Callable[[Callable[..., Any]], CallableFlow]:
    """Decorator: :class:`CallableFlow` with the options of ``prefect.flow``."""
    return lambda function: CallableFlow(function, **options)
