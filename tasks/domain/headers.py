"""HTTP headers that a service adds to the requests to its model server: the rules for them, and their secrets."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.domain.environment import as_text
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.secret_reference import SECRET_REFERENCE, text_of
from tasks.domain.secret_words import SECRET_WORDS

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A header's name (RFC 9110, section 5.1)."""
_OWN = {
    "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
}  # fmt: skip
"""Headers about the request itself and its connection: only the HTTP client can set them."""
_SECRET = re.compile(f"{SECRET_WORDS.pattern}|AUTH|COOKIE|SESSION|SIGNATURE", re.IGNORECASE)
_HARMLESS = {"accept", "accept-language", "cache-control", "host", "origin", "pragma", "referer", "user-agent"}
_BLANKS = " \t\r\n"
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]* +(\S.*)", re.DOTALL)
"""Credentials after their scheme: ``Bearer``, ``Basic``, ``Api-Key`` ..."""


def header_texts(value: Any) -> Any:
    """Names and values as texts, without blanks around the values; no change if not a mapping.

    Raises ValueError with all problems, without values.
    """
    if not isinstance(value, dict):
        return value
    wrong: list[str] = []
    texts: dict[str, str] = {}
    for name, held in value.items():
        if detail := _wrong_name(str(name), texts):
            wrong.append(detail)
            continue
        try:
            text = as_text(held)
            if not isinstance(text, str):
                raise ValueError("should be text")
            texts[str(name)] = sendable(text)
        except ValueError as error:
            wrong.append(f"the value of {name} {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return texts


def _wrong_name(name: str, others: Mapping[str, str]) -> str:
    if _TOKEN.fullmatch(name) is None:
        beginning = _TOKEN.match(name)  # the rest may be the value
        shown = f"{beginning[0]}..." if beginning else "a name"
        return f"{shown} is not a header's name: letters, digits and '-', no blank, no colon"
    if name.lower() in _OWN:
        return f"{name} cannot be given: it is set for each request by what is sent"
    if name.lower() in {one.lower() for one in others}:
        return f"{name} stands twice: the case of its letters does not matter"
    return ""


def sendable(text: str) -> str:
    """A value without blanks and line ends around it. Raises ValueError if it cannot be sent in a header."""
    text = text.strip(_BLANKS)
    if _CONTROL.search(text):
        raise ValueError("should have no line break and no other control character")
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        raise ValueError("should have Latin-1 characters only") from None
    return text


def resolved_headers(headers: Mapping[str, str], blocks: Mapping[str, object]) -> dict[str, str]:
    """Headers with each reference replaced by its block's value, without blanks and line ends around it.

    Raises SpecificationError naming those that cannot be sent.
    """
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for name, text in headers.items():
        try:
            found[name] = sendable(SECRET_REFERENCE.sub(lambda match: text_of(blocks[match[1]]).strip(_BLANKS), text))
        except ValueError as error:
            of = ", ".join(SECRET_REFERENCE.findall(text))
            problems.append(Problem(f"headers.{name}", None, f"with the value of the Secret block {of} {error}"))
    if problems:
        raise SpecificationError(problems)
    return found


def looks_secret(name: str) -> bool:
    """Whether a header of this name presumably holds a secret."""
    return _SECRET.search(name) is not None


def plain_text_secrets(headers: Mapping[str, str]) -> list[str]:
    """Names of headers that appear to hold a secret in plain text."""
    return [name for name, text in headers.items() if text and looks_secret(name) and not SECRET_REFERENCE.search(text)]


def secrets_of(headers: Mapping[str, str]) -> Iterator[str]:
    """The texts of sent headers that must not be shown: their values, and each part that is a secret by itself."""
    for name, text in headers.items():
        if name.lower() in _HARMLESS:
            continue
        yield text
        if name.lower() == "cookie":
            yield from (pair.partition("=")[2].strip() for pair in text.split(";"))
        elif credentials := _SCHEME.fullmatch(text):
            yield credentials[1]
            if text[:6].lower() == "basic ":
                yield from _user_and_password(credentials[1])


def _user_and_password(encoded: str) -> Iterator[str]:
    try:
        named = base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return
    yield named
    yield named.partition(":")[2]
