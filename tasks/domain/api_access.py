"""Access control for the Prefect servers that Thresher starts, decided from a request's line and headers alone.

Such a server listens on this machine only, but that is no protection: every account of the machine can reach it, and
so can every web page in the user's browser, of any origin, even under its own host name bound to 127.0.0.1 (DNS
rebinding).
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names of this machine in a Host header. The port may differ, because of ssh port forwarding."""
API = "/api"
SIGN_IN = "/sign-in"
SIGN_IN_LINKS = "/sign-in/links"
_PROBES = frozenset({"/api/health", "/api/ready"})
_DOCUMENTATION = ("/docs", "/redoc", "/openapi.json")
_GLANCES = frozenset({"/api/deployments/filter", "/api/deployments/count"})
_FOREIGN = frozenset({"cross-site", "same-site"})


class Verdict(Enum):
    """The decision on a request."""

    OPEN = "open"
    """Answered without a password: health, the user interface's own files, signing in."""
    PASSWORD = "password"  # noqa: S105 - no password
    """Needs the password, and has it."""
    GLANCE = "glance"
    """Without a password, but answered to programs of the server's own account: the list of services."""
    FOREIGN_HOST = "The server answers on 127.0.0.1 and localhost only."
    FOREIGN_ORIGIN = "Pages of another origin are not answered."
    NO_PASSWORD = "Unauthorized"  # noqa: S105


@dataclass(frozen=True)
class Asked:
    """A request's method, path and headers. Header names are in lower case."""

    method: str
    path: str
    headers: Iterable[tuple[str, str]]
    websocket: bool = False

    def header(self, name: str) -> str | None:
        """The value of a header; None if it is missing. Raises ValueError if it occurs twice."""
        values = [value for header, value in self.headers if header == name]
        if len(values) > 1:
            raise ValueError(f"{name} is there {len(values)} times")
        return values[0] if values else None


def verdict(asked: Asked, password: str) -> Verdict:
    """The decision on a request to a server with this password."""
    try:
        host, origin = asked.header("host"), asked.header("origin")
        site, given = asked.header("sec-fetch-site"), asked.header("authorization")
    except ValueError:
        return Verdict.FOREIGN_HOST
    if host is None or _name(f"//{host}") not in NAMES:
        return Verdict.FOREIGN_HOST
    if origin is not None and not _same(origin, host):
        return Verdict.FOREIGN_ORIGIN
    guarded = _is_guarded(asked)
    if site in _FOREIGN and (guarded or asked.websocket or asked.header("sec-fetch-mode") != "navigate"):
        return Verdict.FOREIGN_ORIGIN
    if not guarded:
        return Verdict.OPEN
    if asked.websocket:  # browsers cannot send a password with it: Prefect expects it in the first message
        return Verdict.OPEN
    if given is not None and proves(given, password):
        return Verdict.PASSWORD
    by_browser = origin is not None or site is not None
    if given is None and not by_browser and asked.method == "POST" and asked.path in _GLANCES:
        return Verdict.GLANCE
    return Verdict.NO_PASSWORD


def authorization(password: str) -> str:
    """The header that proves the password, as Prefect's clients send it."""
    return f"Basic {base64.b64encode(password.encode()).decode()}"


def proves(given: str, password: str) -> bool:
    """Whether an Authorization header holds the password."""
    return hmac.compare_digest(given.encode(), authorization(password).encode())


def _is_guarded(asked: Asked) -> bool:
    path = asked.path
    if path in _PROBES:
        return asked.method != "GET"
    below = path in (API, SIGN_IN_LINKS) or path.startswith(f"{API}/")
    return below or any(path == page or path.startswith(f"{page}/") for page in _DOCUMENTATION)


def _name(address: str) -> str:
    try:
        parts = urlsplit(address)
        _ = parts.port  # raises if it is not a port
        plain = not (parts.username or parts.path or parts.query or parts.fragment)
        return (parts.hostname or "") if plain else ""
    except ValueError:
        return ""


def _same(origin: str, host: str) -> bool:
    """Whether an origin is that of the server itself."""
    return origin.lower() == f"http://{host}".lower()
