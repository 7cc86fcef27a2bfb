"""What this process's environment sets that cannot work: looked at when something has failed, to name the cause."""

from __future__ import annotations

import importlib.util
import os
import ssl
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from tasks.clients.proxies import is_loopback
from tasks.domain.errors import CallError, Problem, ThresherError
from tasks.domain.paths import redact
from tasks.domain.unexpected import as_ours

_CERTIFICATES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PREFECT_API_SSL_CERT_FILE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_SERVER = "PREFECT_API_URL"


def explained(error: BaseException) -> ThresherError:
    """An unexpected error as one of Thresher's tree, in one line; its cause is the error itself."""
    ours = as_ours(error, os.environ, wrong_surroundings)
    ours.__cause__ = error
    return ours


def wrong_surroundings(environment: Mapping[str, str] | None = None) -> list[Problem]:
    """What is wrong by itself: certificates, proxies, folders, the address of the Prefect server."""
    given = os.environ if environment is None else environment
    return [*_certificates(given), *_proxies(given), *_prefect(given), *_folders(given)]


def blamed(url: str) -> str:
    """What makes a web address unreachable from here whatever its server does, as a sentence; empty if nothing does."""
    found = list(_certificates(os.environ)) if url.lower().startswith("https:") else []
    if not is_loopback(url):
        found += _proxies(os.environ)
    return "".join(f" {problem}." for problem in found[:1])


def check_server_address(environment: Mapping[str, str] | None = None) -> None:
    """Raises CallError if PREFECT_API_URL or the level of Prefect's log is nothing that Prefect could use."""
    if problems := list(_prefect(os.environ if environment is None else environment)):
        raise CallError(problems)


def _certificates(environment: Mapping[str, str]) -> Iterator[Problem]:
    for name in _CERTIFICATES:
        value = environment.get(name, "")
        if not value or (name != "SSL_CERT_FILE" and os.path.isdir(value)):  # some take a folder of certificates
            continue
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:  # of which ssl.SSLError is one
            said = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            yield Problem(name, value, f"should be a file of certificates (PEM) that can be read: {said}")


def _proxies(environment: Mapping[str, str]) -> Iterator[Problem]:
    for name in (*_PROXIES, *map(str.upper, _PROXIES)):
        value = environment.get(name, "").strip()
        if not value:
            continue
        try:
            parts = urlsplit(value if "://" in value else f"http://{value}")
            fits = parts.scheme.lower() in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:  # brackets that are not closed, a port out of range
            fits = False
        if not fits:
            yield Problem(name, redact(value), "should be the address of a proxy, such as http://host:3128")
        elif parts.scheme.lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
            expected = "is a SOCKS proxy, which needs the package socksio: `pip install socksio`, or unset it"
            yield Problem(name, redact(value), expected)


_PROFILES = ("cloud", "ephemeral", "local", "test")
"""Those that Prefect brings."""


def _prefect(environment: Mapping[str, str]) -> Iterator[Problem]:
    address = environment.get(_SERVER, "")
    if address:
        try:
            parts = urlsplit(address)
            fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            fits = fits and not any(sign.isspace() for sign in address)
        except ValueError:
            fits = False
        if not fits:
            yield Problem(
                _SERVER, redact(address), "should be the API of a Prefect server, such as http://host:4200/api"
            )
    yield from _profiles(environment)
    level = environment.get("PREFECT_LOGGING_LEVEL", "")
    if level and level.upper() not in _LEVELS:
        yield Problem("PREFECT_LOGGING_LEVEL", level, f"should be one of {', '.join(_LEVELS)}")
    for name in ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING"):
        value = environment.get(name, "").strip()
        if value and not (value.isascii() and value.isprintable()):
            yield Problem(name, None, "should be letters, digits and signs of ASCII: headers carry no others")


def _profiles(environment: Mapping[str, str]) -> Iterator[Problem]:
    home = environment.get("PREFECT_HOME") or "~/.prefect"
    path = Path(environment.get("PREFECT_PROFILES_PATH") or f"{home}/profiles.toml")
    known, wrong = set(_PROFILES), ""
    try:
        held = tomllib.loads(path.expanduser().read_text(encoding="utf-8")).get("profiles", {})
        if isinstance(held, dict):
            known |= set(held)
        else:
            wrong = "profiles is no table"
    except (OSError, RuntimeError):
        pass  # there is none, as on most machines
    except ValueError as error:  # neither UTF-8 nor TOML
        wrong = str(error)
    if wrong:
        yield Problem("PREFECT_PROFILES_PATH", str(path), f"should hold Prefect's profiles as TOML: {wrong}")
        return
    profile = environment.get("PREFECT_PROFILE", "")
    if profile and profile not in known:
        yield Problem("PREFECT_PROFILE", profile, f"is no profile of {path}: there are {', '.join(sorted(known))}")


def _folders(environment: Mapping[str, str]) -> Iterator[Problem]:
    try:
        os.getcwd()
    except OSError as error:
        yield Problem(
            "", None, f"The working folder cannot be used any more ({error.strerror}): change to another one."
        )
    folder = environment.get("TMPDIR", "")
    if folder and not is_usable(folder):
        yield Problem("TMPDIR", folder, "should be a folder in which files can be made")


def is_usable(folder: str) -> bool:
    """Whether a file can be made in a folder."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
