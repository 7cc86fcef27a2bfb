"""Async functions and flows that synchronous code can also call."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec, cast

from prefect import Flow, State
from prefect.futures import PrefectFuture
from pydantic_core import to_jsonable_python

from tasks.domain.errors import ThresherError
from tasks.engine.loop import in_async_code
from tasks.prefect_side.embedded_server import close_server, start_server
from tasks.prefect_side.run_logs import in_our_words

P = ParamSpec("P")


def callable_anywhere(function: Callable[P, Coroutine[Any, Any, Any]]) -> Callable[P, Any]:
    """Decorator of an async function: awaited in async code, called directly in code without a running event loop."""

    @wraps(function)
    def called(*arguments: P.args, **named: P.kwargs) -> Any:
        work = function(*arguments, **named)
        return work if in_async_code() else _in_one_line(partial(asyncio.run, work))

    return called


def _in_one_line(call: Callable[[], Any]) -> Any:
    """The result of a call. A ThresherError is raised again, without the frames it came through."""
    try:
        with in_our_words():
            return call()
    except ThresherError as error:
        failed = error.with_traceback(None)
    raise failed from None


class CallableFlow(Flow[..., Any]):
    """An async flow: awaited in async code, called directly in code without a running event loop.

    Async, because a synchronous flow run waits about a second for its heartbeat thread to end.
    """

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run the flow: its result, or an awaitable of it if an event loop is running."""
        if in_async_code():
            close_server()
            return super().__call__(*arguments, **named)
        begin = super().__call__

        def call() -> Any:
            start_server()
            return asyncio.run(begin(*arguments, **named))

        return _in_one_line(call)

    def serialize_parameters(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """Like Prefect's, which imports FastAPI for this: 0.3 s and 40 MB in a process with no other use for it."""
        if any(isinstance(value, (PrefectFuture, State)) for value in parameters.values()):
            return super().serialize_parameters(parameters)
        try:
            return cast(dict[str, Any], to_jsonable_python(parameters))
        except (ValueError, RecursionError):
            return super().serialize_parameters(parameters)  # which replaces such a value by a placeholder

    def with_options(self, *arguments: Any, **named: Any) -> CallableFlow:
        """Like Prefect's, which would return a plain flow: that could only be awaited."""
        changed = super().with_options(*arguments, **named)
        changed.__class__ = CallableFlow
        return cast(CallableFlow, changed)


def callable_flow(**options: Any) -> Callable[[Callable[..., Any]], CallableFlow]:
    """Decorator: :class:`CallableFlow` with the options of ``prefect.flow``."""
    return lambda function: CallableFlow(function, **options)
