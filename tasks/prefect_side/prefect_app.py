"""Thresher's Prefect server: Prefect's own application with access control in front, listening on this machine only.

Run as ``python -P -m tasks.prefect_side.prefect_app PORT`` for a server with its user interface and services, or with
``--embedded FD`` for one on a socket that its parent has bound. Prefect's settings are in the environment, including
the password (``PREFECT_SERVER_API_AUTH_STRING``), which is required.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from tasks.clients.processes.peers import peer_account
from tasks.clients.processes.process_privacy import hide_memory
from tasks.clients.surroundings.startup import importing
from tasks.domain.api_access import SIGN_IN, SIGN_IN_LINKS, Asked, Verdict, authorization, verdict
from tasks.domain.sign_in import PAGE, PAGE_POLICY, Links

HOST = "127.0.0.1"
BACKLOG = 2048
UI_SETTINGS = "/ui-settings"
_STATUS = {Verdict.FOREIGN_HOST: 421, Verdict.FOREIGN_ORIGIN: 403, Verdict.NO_PASSWORD: 401}
_SAFE = ((b"x-frame-options", b"DENY"), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin"))
_MAX_BODY = 4096

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Door:
    """An ASGI application that passes to another one the requests that the rules of ``domain/api_access`` allow."""

    def __init__(self, app: App, password: str, *, glances: bool) -> None:
        """``glances`` lets programs of this account list the services without the password."""
        self._app = app
        self._password = password
        self._glances = glances
        self._links = Links(time.monotonic)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        asked = _asked(scope)
        found = verdict(asked, self._password)
        if found is Verdict.GLANCE:
            if self._glances and await _is_own_account(scope):
                authorized = (b"authorization", authorization(self._password).encode())
                scope = {**scope, "headers": [*scope["headers"], authorized]}
            else:
                found = Verdict.NO_PASSWORD
        if found in _STATUS:
            await _refuse(scope, send, _STATUS[found], found.value)
        elif asked.websocket:
            await self._app(scope, receive, send)
        elif asked.path == SIGN_IN:
            await self._sign_in(asked, receive, send)
        elif asked.path == SIGN_IN_LINKS:
            link = secrets.token_urlsafe(32)
            self._links.give(link)
            await _answer(send, 200, {"link": link})
        elif asked.path == UI_SETTINGS:
            plain = [one for one in scope["headers"] if one[0].lower() != b"accept-encoding"]
            await self._app({**scope, "headers": plain}, receive, _here(send, asked.header("host") or HOST))
        else:
            await self._app(scope, receive, _safe(send))

    async def _sign_in(self, asked: Asked, receive: Receive, send: Send) -> None:
        if asked.method == "GET":
            policy = (b"content-security-policy", PAGE_POLICY.encode())
            await _send(send, 200, b"text/html; charset=utf-8", PAGE.encode(), policy, (b"cache-control", b"no-store"))
            return
        link = await _link(receive) if asked.method == "POST" and asked.header("origin") is not None else ""
        if link and self._links.use(link):
            await _answer(send, 200, {"password": authorization(self._password).removeprefix("Basic ")})
        else:
            await _answer(send, 403, {"exception_message": "This link was used before, or is too old."})


def _here(send: Send, host: str) -> Send:
    """Point the user interface to the API at the address that its page came from: 127.0.0.1, localhost, a forwarded
    port.
    """
    status, body = 200, b""

    async def corrected(message: Message) -> None:
        nonlocal status, body
        if message["type"] == "http.response.start":
            status = message["status"]
            return
        body += message.get("body", b"")
        if message.get("more_body"):
            return
        if status != 200:
            await _send(send, status, b"application/json", body)
        else:
            await _answer(send, 200, {**json.loads(body), "api_url": f"http://{host}/api"})

    return corrected


def _asked(scope: Message) -> Asked:
    headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]
    websocket = scope["type"] == "websocket"
    return Asked("GET" if websocket else scope["method"], scope["path"], headers, websocket)


async def _is_own_account(scope: Message) -> bool:
    """Whether the client has the account of this process, according to the kernel."""
    peer, own = scope.get("client"), scope.get("server")
    if not peer or not own:
        return False
    found = await asyncio.to_thread(peer_account, (peer[0], peer[1]), (own[0], own[1]))
    return found is not None and found == os.geteuid()


async def _link(receive: Receive) -> str:
    body = b""
    while len(body) <= _MAX_BODY:
        message = await receive()
        if message["type"] != "http.request":
            return ""
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    try:
        found = json.loads(body[: _MAX_BODY + 1])
    except ValueError:
        return ""
    link = found.get("link") if isinstance(found, dict) else None
    return link if isinstance(link, str) else ""


def _safe(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *_SAFE]}
        await send(message)

    return with_headers


async def _refuse(scope: Message, send: Send, status: int, why: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
    else:
        await _answer(send, status, {"exception_message": why})


async def _answer(send: Send, status: int, found: object) -> None:
    await _send(send, status, b"application/json", json.dumps(found).encode(), (b"cache-control", b"no-store"))


async def _send(send: Send, status: int, kind: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status}
    await send({**start, "headers": [(b"content-type", kind), length, *_SAFE, *headers]})
    await send({"type": "http.response.body", "body": body})


def main() -> None:
    """Serve until SIGTERM; without a password, or on a port in use, end with status 1 and the reason."""
    hide_memory()
    given = argparse.ArgumentParser()
    given.add_argument("port", type=int, nargs="?")
    given.add_argument("--embedded", type=int, metavar="FD")
    arguments = given.parse_args()
    password = os.environ.get("PREFECT_SERVER_API_AUTH_STRING", "")
    if not password:
        sys.exit("PREFECT_SERVER_API_AUTH_STRING is not set")
    with importing():
        import uvicorn
        from prefect.server.api.server import create_app
        from prefect.settings import get_current_settings

    settings = get_current_settings().server
    embedded = arguments.embedded is not None
    if embedded:
        listener = socket.socket(fileno=arguments.embedded)
    else:
        listener = socket.create_server((HOST, arguments.port), backlog=BACKLOG)
    with importing():
        app = create_app(ephemeral=embedded, final=True)
    os.umask(0o077)  # for the database; only now, after Prefect has put the user interface's files in place
    config = uvicorn.Config(
        Door(app, password, glances=not embedded),
        lifespan="on",
        log_level="error" if embedded else settings.logging_level.lower(),
        timeout_keep_alive=settings.api.keepalive_timeout,
        ws_ping_interval=settings.api.websocket_ping_interval,
        ws_ping_timeout=settings.api.websocket_ping_timeout,
        backlog=BACKLOG,
        proxy_headers=False,  # the client is always the connected peer
        server_header=False,
    )
    uvicorn.Server(config).run(sockets=[listener])
    gc.freeze()  # the memory is freed as a whole


if __name__ == "__main__":
    main()
