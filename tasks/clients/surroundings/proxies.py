"""Proxies from environment variables: never used for this machine's own servers, and named in errors when used."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from tasks.domain.paths import redact

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EXCEPT = ("NO_PROXY", "no_proxy")
"""Some libraries read one of them, some the other."""


def spare_loopback() -> None:
    """Exclude this machine from proxies, here and in the processes started from here.

    Other exclusions are kept. HTTP clients read these variables when they are made, websocket clients when they
    connect.
    """
    if not any(kind != "no" for kind in getproxies_environment()):
        return
    given = {name: value for name in _EXCEPT if (value := os.environ.get(name, ""))}
    for name in _EXCEPT:
        hosts = [host.strip() for host in given.get(name, next(iter(given.values()), "")).split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join(hosts + [host for host in LOOPBACK if host not in hosts])


def is_loopback(url: str) -> bool:
    """Whether a web address leads to this machine."""
    return _host(url) in LOOPBACK


def proxy_for(url: str) -> str:
    """The variable with the proxy for a web address, and its value without the password; empty if no proxy is used."""
    scheme, host = url.partition(":")[0].lower(), _host(url)
    if not host or proxy_bypass(host):
        return ""
    for name in (f"{scheme}_proxy", f"{scheme}_proxy".upper(), "all_proxy", "ALL_PROXY"):
        if value := os.environ.get(name, ""):
            return f"{name}={redact(value if '://' in value else f'http://{value}')}"
    return ""


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
