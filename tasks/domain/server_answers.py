"""The first response from a Prefect server's address, or the failure to get one, explained in plain words."""

from __future__ import annotations

from http import HTTPStatus

PASSING = (408, 429, 502, 503, 504)
"""Statuses of a server that may answer soon: it is starting or overloaded."""
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def not_an_api(shown: str) -> str:
    """The message for an address of an HTTP server that is not a Prefect server."""
    return f"{shown} is not the API of a Prefect server: its address ends in /api."


def not_answered(shown: str, what: str, more: str = "") -> str:
    """The message for a missing response; ``what`` came instead, ``more`` is a sentence with the reason."""
    between = f"{more} " if more else ""
    return (
        f"The Prefect server {shown} cannot be reached{what}. {between}Start one with `thresher up`, or set "
        "PREFECT_API_URL to the address of yours."
    )


def unlike_an_api(shown: str, status: int, location: str = "", through: str = "") -> str:
    """The message for a response to the version request that is neither a version nor a refusal of credentials.

    ``location`` is the target of a redirect, ``through`` names the proxy.
    """
    if status in (200, 404):
        return not_an_api(shown)
    named = f"HTTP {status} {phrase}" if (phrase := _PHRASES.get(status)) else f"HTTP {status}"
    if 300 <= status < 400:
        where = f", to {location}" if location else ""
        return f"{shown} is not the API of a Prefect server: it answers {named}{where}."
    if status == 407:
        return not_answered(shown, f"{through} ({named})", "The proxy wants a user's name and a password.")
    if status in PASSING:
        cause = "That is the answer of a gateway whose server is away, or of a server that starts or is overloaded."
        return not_answered(shown, f"{through} ({named})", cause)
    return f"The Prefect server {shown} answers {named}{through} when it is asked for its version."
