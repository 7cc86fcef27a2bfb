"""Signed share links: fetching the http(s) addresses in a manifest, restricted to public hosts.

A manifest is untrusted input, so its links must not reach into the network that Thresher runs in. Every connection, at
each redirect, must be to a public address, unless the administrator allows the host. The address connected to is
checked, not the name, so a name that resolves differently the second time does not pass.
"""

from __future__ import annotations

import asyncio
import ipaddress
import random
import re
import socket
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from tasks.clients.http_headers import retry_after
from tasks.clients.storage.failures import ObjectError, TooLarge, is_error
from tasks.domain.retry import Failure, decide

MAX_REDIRECTS = 5
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""The only IPv6 range allocated so far; is_global also accepts unassigned and some old local addresses."""


class AddressNotAllowed(OSError):
    """A share link leads to an address that is not public."""


def is_public(address: str) -> bool:
    """Whether an IP address is outside private, loopback, link-local and other special ranges."""
    ip = ipaddress.ip_address(address.split("%", 1)[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast


class _Resolver(AbstractResolver):
    """Resolves names, leaving out addresses that are not public."""

    def __init__(self, allowed: frozenset[str]) -> None:
        self._allowed = allowed
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        if _is_allowed(self._allowed, host, port):
            return await self._resolver.resolve(host, port, family)
        try:
            found = await self._resolver.resolve(host, port, family)
        except OSError as error:
            raise OSError(error.errno, _unknown(host)) from None
        public = [one for one in found if is_public(one["host"])]
        if not public:
            raise AddressNotAllowed(_unknown(host))
        return public

    async def close(self) -> None:
        await self._resolver.close()


def _is_allowed(allowed: frozenset[str], host: str, port: int) -> bool:
    host = host.lower().rstrip(".")
    return host in allowed or f"{host}:{port}" in allowed


def _refusal(host: str) -> str:
    return f"The host {host} is not a public address; the administrator can allow it (THRESHER_SHARE_LINK_HOSTS)."


def _unknown(host: str) -> str:
    # The same message for an unknown name and for one of the internal network, so that the author of a manifest learns
    # nothing about the names in this network.
    return (
        f"The host {host} is not a public address, or is not known; the administrator can allow it "
        "(THRESHER_SHARE_LINK_HOSTS)."
    )


LOOKED_AT = 2048
"""Bytes of an error response that are searched for its code."""
_CODE = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_UNSENDABLE = re.compile(r"[^!-~]")


class ShareLinks:
    """Fetches share links. One per process and event loop; ``close`` when done."""

    def __init__(self, allowed_hosts: Sequence[str], timeout_seconds: float) -> None:
        self._allowed = frozenset(host.lower() for host in allowed_hosts)
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=10)
        self._session: aiohttp.ClientSession | None = None

    async def read(self, link: str, max_bytes: int | None) -> bytes:
        """The bytes at a link. Raises ObjectError, or TooLarge before more than ``max_bytes`` are taken."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._follow(link, max_bytes)
            except _Refused as refused:
                failure, cause = refused.failure, refused.cause
            except AddressNotAllowed as error:
                raise ObjectError(str(error)) from None
            except TimeoutError:
                failure, cause = Failure("timeout"), "The host did not answer in time."
            except (aiohttp.ClientError, OSError, ValueError) as error:
                if isinstance(error.__cause__, AddressNotAllowed):
                    raise ObjectError(str(error.__cause__)) from None
                if isinstance(error, (aiohttp.InvalidURL, ValueError)):
                    raise ObjectError("The share link is not a valid address.") from None
                failure, cause = Failure("connection"), _connection_cause(error)
            decision = decide(failure, attempt, jitter=random.random())
            if not decision.again:
                raise ObjectError(cause)
            await asyncio.sleep(decision.delay_seconds)

    async def _follow(self, link: str, max_bytes: int | None) -> bytes:
        session = self._open()
        link = sendable(link)
        for _ in range(MAX_REDIRECTS + 1):
            # The signature covers the exact query, so it must not be encoded again. The URL that is checked is the one
            # that the client connects to: two parsers may find different hosts in the same address.
            url = URL(link, encoded=True)
            if url.scheme not in ("http", "https") or not url.raw_host:
                raise ObjectError("A redirect leads to something else than http(s).")
            self._check_literal(url.raw_host, url.port or 0)
            if url.scheme == "http" and not _is_allowed(self._allowed, url.raw_host, url.port or 0):
                raise ObjectError(
                    f"A share link should begin with https://, and lead nowhere else; the administrator can allow http "
                    f"for the host {url.raw_host} (THRESHER_SHARE_LINK_HOSTS)."
                )
            async with session.get(url, allow_redirects=False) as answer:
                if answer.status in (301, 302, 303, 307, 308) and (target := answer.headers.get("Location")):
                    link = sendable(urljoin(link, target))
                    continue
                if answer.status != 200:
                    raise _Refused(answer, link, await answer.content.read(LOOKED_AT))
                if max_bytes is not None and (answer.content_length or 0) > max_bytes:
                    raise TooLarge(answer.content_length or 0)
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if max_bytes is not None and len(body) > max_bytes:
                        raise TooLarge(len(body))
                if "ETag" not in answer.headers and is_error(body):
                    raise ObjectError("The host answers with an error document in the place of the object.")
                return bytes(body)
        raise ObjectError(f"More than {MAX_REDIRECTS} redirects.")

    def _check_literal(self, host: str, port: int) -> None:
        # The client does not resolve a host that is already an IP address, and the system accepts more notations for
        # one (octal, hexadecimal, a single number) than the client does.
        try:
            public = is_public(host)
        except ValueError:
            try:
                public = is_public(socket.inet_ntoa(socket.inet_aton(host)))
            except (OSError, ValueError):
                return
        if not public and not _is_allowed(self._allowed, host, port):
            raise AddressNotAllowed(_refusal(host))

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=64, resolver=_Resolver(self._allowed), ttl_dns_cache=60)
            self._session = aiohttp.ClientSession(
                connector=connector,
                timeout=self._timeout,
                auto_decompress=False,
                trust_env=False,
                headers={"Accept-Encoding": "identity"},
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class _Refused(Exception):
    """The host answered, but not with the object."""

    def __init__(self, answer: aiohttp.ClientResponse, link: str, body: bytes) -> None:
        code = _CODE.search(body)
        detail = f" ({code[1].decode()})" if code else ""
        self.failure = Failure("status", answer.status, retry_after(answer.headers.get("Retry-After")))
        if answer.status in (401, 403):
            self.cause = f"HTTP {answer.status}{detail}: no permission, or the share link has expired{_expiry(link)}."
        elif answer.status == 404:
            self.cause = "HTTP 404: there is no such object."
        else:
            self.cause = f"HTTP {answer.status}{detail}."


def sendable(link: str) -> str:
    """A link with all that a request line cannot hold (blanks, controls, non-ASCII) percent-encoded.

    The rest is unchanged, so that the signature holds: servers sign what they decode. The host is never changed.
    """
    begin = _AUTHORITY.match(link)
    if begin is None:
        return link
    return begin[0] + _UNSENDABLE.sub(lambda sign: quote(sign[0], safe=""), link[begin.end() :])


def _expiry(link: str) -> str:
    expires: Any = parse_qs(urlsplit(link).query).get("Expires", [""])[0]
    try:
        return f" (it was valid until {datetime.fromtimestamp(int(expires), UTC):%Y-%m-%d %H:%M:%S} UTC)"
    except (ValueError, OverflowError, OSError):
        return ""


def _connection_cause(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "The host's certificate is not valid."
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return error.os_error.strerror or "The host is not known."
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"No connection to the host ({error.os_error.strerror or 'unknown'})."
    return "The connection broke."
