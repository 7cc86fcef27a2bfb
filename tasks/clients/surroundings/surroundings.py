"""Faulty settings in this process's environment: checked after a failure, to name its cause."""

from __future__ import annotations

import errno
import importlib.util
import os
import resource
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from tasks.clients.surroundings.prefect_files import given_settings, wrong_prefect
from tasks.clients.surroundings.proxies import is_loopback
from tasks.domain.errors import CallError, Problem, ThresherError
from tasks.domain.paths import redact
from tasks.domain.process_limits import tight_limits
from tasks.domain.unexpected import as_ours

_CERTIFICATES = ("SSL_CERT_FILE", "AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PREFECT_API_SSL_CERT_FILE")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PROXY_SCHEMES = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_OF_THE_PROCESS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""The process could not open or read any file at that moment, whatever its content."""


def explained(error: BaseException) -> ThresherError:
    """An unexpected error as a ThresherError, in one line; its cause is the error itself."""
    ours = as_ours(error, wrong_surroundings, lambda: given_settings(os.environ)[0])
    ours.__cause__ = error
    return ours


def wrong_surroundings(environment: Mapping[str, str] | None = None) -> list[Problem]:
    """Problems of the environment itself: limits, certificates, proxies, Prefect's settings, folders."""
    given = os.environ if environment is None else environment
    return [*_limits(), *_certificates(given), *_proxies(given), *wrong_prefect(given), *_folders(given)]


def blamed(url: str) -> str:
    """Why a web address is unreachable from here, whatever its server does, as a sentence; empty if there is no reason
    here.
    """
    found = list(_certificates(os.environ)) if url.lower().startswith("https:") else []
    if not is_loopback(url):
        found += _proxies(os.environ)
    return "".join(f" {problem}." for problem in found[:1])


def check_limits() -> None:
    """Raises CallError if this process's limits on open files or memory are too low for a server of its own."""
    if problems := _limits():
        raise CallError(problems)


def _certificates(environment: Mapping[str, str]) -> Iterator[Problem]:
    for name in _CERTIFICATES:
        value = environment.get(name, "")
        if not value or (name != "SSL_CERT_FILE" and os.path.isdir(value)):  # some take a folder of certificates
            continue
        try:
            ssl.create_default_context(cafile=value)
        except OSError as error:  # ssl.SSLError is a subclass
            if error.errno in _OF_THE_PROCESS and not isinstance(error, ssl.SSLError):
                continue
            detail = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
            yield Problem(name, value, f"should be a file of certificates (PEM) that can be read: {detail}")


def _proxies(environment: Mapping[str, str]) -> Iterator[Problem]:
    for name in (*_PROXIES, *map(str.upper, _PROXIES)):
        value = environment.get(name, "").strip()
        if not value:
            continue
        try:
            parts = urlsplit(value if "://" in value else f"http://{value}")
            fits = parts.scheme.lower() in _PROXY_SCHEMES and bool(parts.hostname) and parts.port != 0
        except ValueError:  # unclosed brackets, a port out of range
            fits = False
        if not fits:
            yield Problem(name, redact(value), "should be the address of a proxy, such as http://host:3128")
        elif parts.scheme.lower().startswith("socks") and importlib.util.find_spec("socksio") is None:
            expected = "is a SOCKS proxy, which needs the package socksio: `pip install socksio`, or unset it"
            yield Problem(name, redact(value), expected)


def _limits() -> list[Problem]:
    files, memory = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS))
    endless = resource.RLIM_INFINITY
    return tight_limits(None if files == endless else files, None if memory == endless else memory)


def _folders(environment: Mapping[str, str]) -> Iterator[Problem]:
    try:
        os.getcwd()
    except OSError as error:
        yield Problem(
            "", None, f"The working folder cannot be used any more ({error.strerror}): change to another one."
        )
    folder = environment.get("TMPDIR", "")
    try:
        if folder:
            tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        yield Problem("TMPDIR", folder, "should be a folder in which files can be made")
