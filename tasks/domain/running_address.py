"""The addresses of model servers that already run, as given in a service's ``model``."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_SCHEMES = ("http://", "https://")
_END = re.compile(r"[/?#]")
"""The end of the part of an address that names the host."""


def is_running_model(model: str) -> bool:
    """Whether a service's ``model`` is one or several addresses of servers that already run."""
    return model.strip().lower().startswith(_SCHEMES)


def running_addresses(model: str) -> list[str]:
    """The addresses in such a ``model``. Raises ValueError, which never shows a user name or a password."""
    found = model.split()
    for address in found:
        _check(address)
    places = [place(address) for address in found]
    if twice := [address for number, address in enumerate(found) if places[number] in places[:number]]:
        raise ValueError(f"should name each address once; {twice[0].partition('?')[0]} stands twice")
    return found


def _check(address: str) -> None:
    if "@" in _END.split(address.partition("://")[2])[0]:
        raise ValueError("should have no user name or password inside the address: use headers (Authorization)")
    if not is_running_model(address):
        raise ValueError("several addresses should all be http:// or https://, with blanks between them")
    if address.endswith((",", ";")):
        raise ValueError("several addresses have blanks between them, no commas")
    try:
        parts = urlsplit(address)
        wrong = not parts.hostname or (parts.port is not None and not 0 < parts.port < 65536)
        (parts.hostname or "").encode("idna")
    except ValueError:  # UnicodeError is one
        wrong = True
    if wrong:
        raise ValueError("should be http(s)://host, http(s)://host:port or such an address with a path")


def place(address: str) -> tuple[str, str, int, str, str]:
    """The normalized parts of an address, equal for all spellings of it."""
    parts = urlsplit(address)
    port = parts.port or _PORTS.get(parts.scheme, 80)
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/"), parts.query


def asked(address: str, path: str) -> SplitResult:
    """The URL of requests to the API ``path`` of a server at this address.

    Path and query of the address are kept; nothing is appended for the path ``/``.
    """
    base, (added, _, query) = urlsplit(address), path.partition("?")
    own = base.path.rstrip("/") + added if added != "/" else base.path or "/"
    return base._replace(path=own, query="&".join(filter(None, (base.query, query))), fragment="")


def health_base(address: str, request_path: str) -> str:
    """The base address for the health check of a server.

    It is that of its APIs, or the root of its host if the address is itself that of the API, as in
    ``http://host/v1/models/iris:predict``.
    """
    parts = urlsplit(address)
    itself = request_path == "/" and not parts.path.endswith("/")
    return parts._replace(path="" if itself else parts.path, query="", fragment="").geturl()
