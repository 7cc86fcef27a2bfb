"""The connection to the Prefect server of the services; its errors become one-line messages."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_KEY,
    PREFECT_API_URL,
    PREFECT_UI_URL,
    temporary_settings,
)

from tasks.clients.surroundings.prefect_files import given_settings
from tasks.clients.surroundings.proxies import is_loopback, proxy_for, spare_loopback
from tasks.clients.surroundings.surroundings import blamed, wrong_surroundings
from tasks.domain.errors import CallError, ServerError
from tasks.domain.paths import redact
from tasks.domain.prefect_settings import SERVER, first_of
from tasks.domain.server_answers import PASSING, not_an_api, not_answered, unlike_an_api
from tasks.prefect_side.internals import answer_once
from tasks.prefect_side.stack_access import password_for, refused, stack_address

DEFAULT_API = "http://127.0.0.1:4200/api"

ANSWER_SECONDS = 8.0
"""Time-out of the request for the server's version, even for a busy server."""
PAUSES_SECONDS = (0.5, 1.0)
"""Pauses before retries, after a closed connection or a transient status."""


def api_url() -> str:
    """Address of the server's API: Prefect's setting (variable or profile), else that of ``thresher up``."""
    if configured := PREFECT_API_URL.value():
        return str(configured)
    return stack_address() or DEFAULT_API


def ui_url(path: str) -> str:
    """Address of a page of the server's user interface."""
    base = PREFECT_UI_URL.value() or api_url().removesuffix("/").removesuffix("/api")
    return f"{base.rstrip('/')}/{path}"


@asynccontextmanager
async def prefect_server() -> AsyncIterator[PrefectClient]:
    """A client of the server; all of Prefect uses the same server in this context. Raises ServerError."""
    url = api_url()
    shown = redact(url)
    if is_loopback(url):
        spare_loopback()
    try:
        with temporary_settings(updates=access(url)):
            async with get_client() as client:
                await _check_version(client, shown)
                yield client
    except PrefectHTTPStatusError as error:
        raise ServerError(_refusal(error, shown)) from None
    except (ObjectNotFound, ObjectAlreadyExists) as error:
        path = error.http_exc.request.url.path if isinstance(error.http_exc, httpx.HTTPStatusError) else "an object"
        what = "has not got" if isinstance(error, ObjectNotFound) else "has already got"
        raise ServerError(
            f"The Prefect server {shown} {what} {path}: it has just been changed from elsewhere, try again."
        ) from None
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        if isinstance(error, OSError) and (wrong := wrong_surroundings()):
            raise CallError(wrong) from None
        distrusted = "Its certificate is not trusted here: SSL_CERT_FILE names a file of those that are."
        why = distrusted if "CERTIFICATE_VERIFY_FAILED" in str(error) else f"{_given_by(url)}{blamed(url)}".strip()
        raise ServerError(not_answered(shown, f"{_through(url)} ({_came_back(error)})", why)) from None


def access(url: str) -> dict[Any, Any]:
    """Prefect's settings for a server; with the password of ``thresher up`` if it is that server and none is set."""
    found: dict[Any, Any] = {PREFECT_API_URL: url}
    if not (PREFECT_API_AUTH_STRING.value() or PREFECT_API_KEY.value()) and (password := password_for(url)):
        found[PREFECT_API_AUTH_STRING] = password
    return found


async def _check_version(client: PrefectClient, shown: str) -> None:
    answer = await _first_answer(client)
    if answer.status_code in (401, 403):
        raise ServerError(refused(shown, answer.status_code))
    if answer.status_code != 200:
        location = redact(answer.headers.get("location", ""))
        through = _through(str(client.api_url))
        raise ServerError(unlike_an_api(shown, answer.status_code, location, through))
    try:
        server = str(answer.json())
        major = int(server.split(".")[0])
    except ValueError:
        raise ServerError(not_an_api(shown)) from None
    own = client.client_version()
    if major != int(own.split(".")[0]):
        raise ServerError(
            f"The Prefect server {shown} has version {server}, this Thresher needs version {own.split('.')[0]} "
            f"(it was made with {own})."
        )


async def _first_answer(client: PrefectClient) -> httpx.Response:
    """The response to the request for the server's version."""
    for pause in (*PAUSES_SECONDS, None):
        try:
            answer = await answer_once(client, "GET", "/admin/version", timeout=ANSWER_SECONDS)
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError):
            if pause is None:
                raise
        else:
            if pause is None or answer.status_code not in PASSING:
                break
        await asyncio.sleep(pause)
    return answer


def _through(url: str) -> str:
    return f" through the proxy {named}" if (named := proxy_for(url)) else ""


def _given_by(url: str) -> str:
    """A sentence that names the file of the current folder with this address; empty if it is not from a file."""
    given = first_of(given_settings(os.environ)[0], SERVER)
    stands = given is not None and given.where != SERVER and given.value == url
    return f"The address is {given.where} in the current folder." if given is not None and stands else ""


def _came_back(error: Exception) -> str:
    if isinstance(error, httpx.ConnectTimeout):
        return "no connection in time"
    if isinstance(error, httpx.TimeoutException):
        return "no answer in time"
    if isinstance(error, (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        return "the connection was closed without an answer"
    return type(error).__name__


def _refusal(error: PrefectHTTPStatusError, shown: str) -> str:
    status = error.response.status_code
    if status in (401, 403):
        return refused(shown, status)
    return f"The Prefect server {shown} refuses {error.request.method} {error.request.url.path} (HTTP {status}): " + (
        _detail(error.response) or "it says no more."
    )


def _detail(response: httpx.Response) -> str:
    try:
        reply: Any = response.json()
    except ValueError:
        return redact(response.text[:200])
    detail = reply.get("detail", reply.get("exception_message", reply)) if isinstance(reply, dict) else reply
    return redact(detail if isinstance(detail, str) else json.dumps(detail))[:500]
