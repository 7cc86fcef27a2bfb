"""The ASGI application: health, predict, and every other request."""

from __future__ import annotations

import asyncio
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, NamedTuple

import orjson
from model_service.model_service import SingleNodeService

from .decoding import decode_request
from .encoding import JSON, encode_answer
from .loading import describe, traceback_of_package
from .passing import may_pass
from .settings import Settings
from .threads import StartedThreads

Message = dict[str, Any]
Receive = Callable[[], Coroutine[Any, Any, Message]]
Send = Callable[[Message], Awaitable[None]]

OWN_HOST = re.compile(rb"((127\.0\.0\.1|localhost|\[::1\])(:\d+)?)?", re.IGNORECASE)
"""Accepted Host headers, with any port, since it may be forwarded. Without the header, the client is not a browser."""
EXPLAINED = ((b"x-package-exception", b"final"),)
"""Headers of a 500 that the same request would cause again: an exception of the package itself is the reason."""
LOADING_RETRY_SECONDS = 1
WATCH_AFTER_SECONDS = 1.0
"""A request that takes longer is dropped if its client disconnects before a thread has started on it."""

_log = logging.getLogger("model_server")


class Answer(NamedTuple):
    """One HTTP response. ``headers`` are those in addition to content type and length."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


def failure(status: int, message: str, *headers: tuple[bytes, bytes]) -> Answer:
    """The response ``{"error": message}``."""
    # An error message may quote broken Unicode, which JSON cannot hold.
    body = orjson.dumps({"error": message.encode("utf-8", "backslashreplace").decode("utf-8")})
    return Answer(status, JSON, body, headers)


class ModelApp:
    """Answers requests about one model; ``service`` is None until the model is loaded.

    All work on a request's body and all code of the package run in ``threads``, so that the event loop, and with it the
    health check, is never blocked.
    """

    def __init__(self, settings: Settings, threads: Executor) -> None:
        self.service: SingleNodeService | None = None
        self.started = StartedThreads(settings.folder)
        """The threads that the package started while it was loaded."""
        self._has_answered = False
        self._settings = settings
        self._threads = threads
        self._address = b"127.0.0.1:%d" % settings.port
        self._methods = {path: set(methods) for path, methods in settings.predict_methods.items()}
        self._methods.setdefault(settings.health_path, set()).update({"GET", "HEAD"})

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """The ASGI entry point; one call is one HTTP request."""
        try:
            answer = await self._answer(scope, receive)
        except asyncio.CancelledError:
            # Only a stopping server cancels requests. This response lets the client retry elsewhere or later.
            answer = failure(503, "the model server is stopping")
        if answer is None:
            return
        start = {
            "type": "http.response.start",
            "status": answer.status,
            "headers": [
                (b"content-type", answer.content_type.encode("ascii")),
                (b"content-length", b"%d" % len(answer.body)),
                *answer.headers,
            ],
        }
        await send(start)
        await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Message, receive: Receive) -> Answer | None:
        """The response to one request; None if the client has gone."""
        # Always read first: a connection with unread bytes cannot be reused.
        body = await _read_body(receive)
        if body is None:
            return None
        headers = dict(scope["headers"])
        if b"origin" in headers or not self._is_own_name(headers.get(b"host", b"")):
            return failure(403, "pages of a browser and foreign host names are not answered")
        path, method = scope["path"], scope["method"]
        allowed = self._methods.get(path)
        if allowed is None:
            known = ", ".join(f"{each} {url}" for url, methods in self._methods.items() for each in sorted(methods))
            return failure(404, f"there is no {path!r} here; there are: {known}")
        if method not in allowed:
            allow = ", ".join(sorted(allowed))
            return failure(405, f"{path!r} answers {allow}, not {method}", (b"allow", allow.encode("latin-1")))
        service = self.service
        if path == self._settings.health_path and method in ("GET", "HEAD"):
            status, word = (200, "ready") if service is not None else (503, "loading")
            return Answer(status, JSON, orjson.dumps({"status": word, "model": self._settings.model_name}))
        if service is None:
            return failure(503, "the model is still loading", (b"retry-after", b"%d" % LOADING_RETRY_SECONDS))
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        return await self._predict(service, body, content_type, scope["query_string"], receive)

    def _is_own_name(self, host: bytes) -> bool:
        """Whether the Host header names this machine: a web page could make its own name point here (DNS rebinding)."""
        return host == self._address or OWN_HOST.fullmatch(host) is not None

    async def _predict(
        self, service: SingleNodeService, body: bytes, content_type: str, query: bytes, receive: Receive
    ) -> Answer | None:
        """Answer in a thread; None if the client has gone."""
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, self._run_model, service, body, content_type, query)
        gone: asyncio.Task[Message] | None = None

        def watch_client() -> None:
            nonlocal gone
            gone = loop.create_task(receive())
            gone.add_done_callback(lambda _: work.cancel())

        # Not at once: a task per request would cost fast models a tenth of their throughput.
        timer = loop.call_later(WATCH_AFTER_SECONDS, watch_client)
        try:
            return await work
        except asyncio.CancelledError:
            if gone is not None and gone.done():
                _log.info("a request gets no answer: its client has gone")
                return None
            raise
        finally:
            timer.cancel()
            if gone is not None:
                gone.cancel()

    def _run_model(self, service: SingleNodeService, body: bytes, content_type: str, query: bytes) -> Answer:
        """Decode, run the package's code, encode. Every error becomes a response: the server keeps running."""
        try:
            data = decode_request(body, content_type, query)
        except ValueError as error:
            return failure(400, str(error))
        try:
            answer = Answer(200, *encode_answer(service.inference(data)))
            self._has_answered = True
            return answer
        except BaseException as error:
            trace = traceback_of_package(self._settings.folder, error.__traceback__)
            lines = traceback.format_exception(type(error), error, trace)
            _log.error("a request failed in the model's code\n%s", "".join(lines).rstrip())
            # A background thread may still be loading the model: then the first responses are not final.
            may_load = not self._has_answered and self.started.running()
            return failure(500, describe(error), *(() if may_load or may_pass(error) else EXPLAINED))


async def _read_body(receive: Receive) -> bytes | None:
    """The whole body of a request; None if the client went away before its end."""
    pieces: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        pieces.append(message["body"])
        if not message["more_body"]:
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
