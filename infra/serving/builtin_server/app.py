"""What is answered to each request: health, predict, and every other."""

import asyncio
import logging
import re
import traceback
from concurrent.futures import Executor, Future
from typing import Any, Dict, Optional, Set

from .decoding import decode_request
from .encoding import JSON, encode_answer, json_bytes
from .http_server import Answer, Cancel, Headers, Reply, Request
from .json_text import JsonText
from .loading import Loaded, describe, traceback_of_package
from .passing import may_pass
from .settings import Settings
from .threads import StartedThreads

OWN_HOST = re.compile(rb"((127\.0\.0\.1|localhost|\[::1\])(:\d+)?)?", re.IGNORECASE)
"""Accepted Host headers, with any port, since it may be forwarded. Without the header, the client is not a browser."""
EXPLAINED = (("x-package-exception", "final"),)
"""Headers of an error that the same request would cause again: an exception of the package itself is the reason."""
LOADING_RETRY_SECONDS = 1

_log = logging.getLogger("model_server")


def failure(status: int, message: str, headers: Headers = ()) -> Answer:
    """The response ``{"error": message}``."""
    # An error message may quote broken Unicode, which JSON cannot hold.
    body = json_bytes({"error": message.encode("utf-8", "backslashreplace").decode("utf-8")})
    return Answer(status, JSON, body, headers)


class ModelApp:
    """Answers requests about one model; ``loaded`` is None until the model is.

    All work on a request's body and all code of the package run in ``threads``, so that the event loop, and with it the
    health check, is never blocked.
    """

    def __init__(self, settings: Settings, threads: Executor, loop: asyncio.AbstractEventLoop) -> None:
        self.loaded: Optional[Loaded] = None
        self.started = StartedThreads(settings.folder)
        """The threads that the package started while it was loaded."""
        self._has_answered = False
        self._settings = settings
        self._threads = threads
        self._loop = loop
        self._address = b"127.0.0.1:%d" % settings.port
        self._methods: Dict[str, Set[str]] = {path: set(methods) for path, methods in settings.predict_methods.items()}
        self._methods.setdefault(settings.health_path, set()).update({"GET", "HEAD"})

    def __call__(self, request: Request, reply: Reply) -> Optional[Cancel]:
        """Answer a request, now or once a thread has run the model; then, returns what cancels it."""
        answer = self._without_model(request)
        if answer is not None:
            reply(answer)
            return None
        work = self._threads.submit(self._run_model, request)
        gone = False

        def answered(done: "Future[Answer]") -> None:
            if not done.cancelled():
                try:
                    self._loop.call_soon_threadsafe(reply, done.result())
                except RuntimeError:  # the server has stopped meanwhile
                    pass

        def cancel() -> None:
            nonlocal gone
            if not gone:
                gone = True
                work.cancel()
                _log.info("a request gets no answer: its client has gone")

        work.add_done_callback(answered)
        return cancel

    def _without_model(self, request: Request) -> Optional[Answer]:
        """The response to all that needs no model; None for a request to a model that is ready."""
        headers = request.headers
        if b"origin" in headers or not self._is_own_name(headers.get(b"host", b"")):
            return failure(403, "pages of a browser and foreign host names are not answered")
        allowed = self._methods.get(request.path)
        if allowed is None:
            paths = self._methods.items()
            known = ", ".join("%s %s" % (method, path) for path, methods in paths for method in sorted(methods))
            return failure(404, "there is no %r here; there are: %s" % (request.path, known))
        if request.method not in allowed:
            allow = ", ".join(sorted(allowed))
            message = "%r answers %s, not %s" % (request.path, allow, request.method)
            return failure(405, message, (("allow", allow),))
        if request.path == self._settings.health_path and request.method in ("GET", "HEAD"):
            status, word = (200, "ready") if self.loaded is not None else (503, "loading")
            return Answer(status, JSON, json_bytes({"status": word, "model": self._settings.model_name}))
        if self.loaded is None:
            return failure(503, "the model is still loading", (("retry-after", str(LOADING_RETRY_SECONDS)),))
        return None

    def _is_own_name(self, host: bytes) -> bool:
        """Whether the Host header names this machine: a web page could make its own name point here (DNS rebinding)."""
        return host == self._address or OWN_HOST.fullmatch(host) is not None

    def _run_model(self, request: Request) -> Answer:
        """Decode, run the package's code, encode. Every error becomes a response: the server keeps running."""
        loaded = self.loaded
        assert loaded is not None
        try:
            content_type = request.headers.get(b"content-type", b"").decode("latin-1")
            data = decode_request(request.body, content_type, request.query, loaded.as_text)
        except ValueError as error:
            return failure(400, str(error))
        try:
            result = loaded.service.inference(data)
            if isinstance(result, JsonText):
                result = result.value
            if isinstance(data, JsonText) and isinstance(result, list):
                result = wrapped(result, data.value)
            answer = Answer(200, *encode_answer(result, self._settings.text_as_json))
            self._has_answered = True
            return answer
        except BaseException as error:
            trace = traceback_of_package(self._settings.folder, error.__traceback__)
            lines = traceback.format_exception(type(error), error, trace)
            _log.error("a request failed in the model's code\n%s", "".join(lines).rstrip())
            # A background thread may still be loading the model: then the first responses are not final.
            if (not self._has_answered and self.started.running()) or may_pass(error):
                return failure(500, describe(error))
            # As in the original, where these two mean that the request is not what the code expects.
            return failure(400 if isinstance(error, (KeyError, TypeError)) else 500, describe(error), EXPLAINED)


def wrapped(result: Any, request: Any) -> Dict[str, Any]:
    """What the original makes of a list of machine learning types: ``{"data": {"resp_data": [...]}}``.

    ``meta`` of the request comes first if there is one.
    """
    meta = {"meta": request["meta"]} if isinstance(request, dict) and "meta" in request else {}
    return {**meta, "data": {"resp_data": result}}
