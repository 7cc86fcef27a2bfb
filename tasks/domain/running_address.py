"""The addresses of model servers that already run, as they stand in a service's ``model``."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

_PORTS = {"http": 80, "https": 443}
_SCHEMES = ("http://", "https://")
_END = re.compile(r"[/?#]")
"""Of the part of an address that names the host."""


def is_running_model(model: str) -> bool:
    """Whether a service's ``model`` is the address of a server that already runs, or several."""
    return model.strip().lower().startswith(_SCHEMES)


def running_addresses(model: str) -> list[str]:
    """The addresses in a ``model`` that is such. Raises ValueError, which never shows a user name or a password."""
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
    """What an address leads to, however it is written."""
    parts = urlsplit(address)
    port = parts.port or _PORTS.get(parts.scheme, 80)
    return parts.scheme, parts.hostname or "", port, parts.path.rstrip("/"), parts.query


def asked(address: str, path: str) -> SplitResult:
    """What is asked at an address for the ``path`` of an API.

    A path in the address is kept, and a query; nothing is appended to them for the path ``/``.
    """
    base, (added, _, query) = urlsplit(address), path.partition("?")
    own = base.path.rstrip("/") + added if added != "/" else base.path or "/"
    return base._replace(path=own, query="&".join(filter(None, (base.query, query))), fragment="")


def health_base(address: str, request_path: str) -> str:
    """The address below which a server is asked for its health.

    It is the one that its APIs are below; or the top of its host, if the address itself is what is asked, as in
    ``http://host/v1/models/iris:predict``.
    """
    parts = urlsplit(address)
    itself = request_path == "/" and not parts.path.endswith("/")
    return parts._replace(path="" if itself else parts.path, query="", fragment="").geturl()
