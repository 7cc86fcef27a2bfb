"""Proxies that environment variables name: never asked for this machine's own servers, and named when one is asked."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies_environment, proxy_bypass

from tasks.domain.paths import redact

LOOPBACK = ("127.0.0.1", "localhost", "::1")
_EXCEPT = ("NO_PROXY", "no_proxy")
"""Some libraries read one of them, some the other."""


def spare_loopback() -> None:
    """From now on no proxy is asked for this machine, here and in the processes started from here.

    Whatever else goes without a proxy stays so. HTTP clients read these variables when they are made, websocket clients
    when they connect.
    """
    if not any(kind != "no" for kind in getproxies_environment()):
        return
    given = {name: value for name in _EXCEPT if (value := os.environ.get(name, ""))}
    for name in _EXCEPT:
        hosts = [host.strip() for host in given.get(name, next(iter(given.values()), "")).split(",") if host.strip()]
        if "*" not in hosts:
            os.environ[name] = ",".join(hosts + [host for host in LOOPBACK if host not in hosts])


def is_loopback(url: str) -> bool:
    """Whether a web address is one of this machine."""
    return _host(url) in LOOPBACK


def proxy_for(url: str) -> str:
    """The variable whose proxy is asked for a web address, with its value but for the password; empty if none is."""
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
