"""Endpoints of object storages: what is an address, and which storages list their keys in the order of names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import urlsplit

_ENDPOINT = re.compile(r"https?://[\w.:%\[\]-]+(/[\w.~%/:@-]*)?", re.ASCII | re.IGNORECASE)
_SORTED = (".amazonaws.com", ".amazonaws.com.cn", ".myhuaweicloud.com")
"""Storages that say that they list keys in the order of their UTF-8 bytes (directory buckets apart)."""


def is_address(endpoint: str) -> bool:
    """Whether this is http(s)://host[:port], with a path or without one."""
    try:
        parts = urlsplit(endpoint)
        return _ENDPOINT.fullmatch(endpoint) is not None and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        return False


def lists_by_bytes(endpoint: str | None, sorted_hosts: Sequence[str]) -> bool:
    """Whether parts of a folder can be told apart by the order of names: with another order keys would be lost.

    ``endpoint`` is one that is an address, or None for AWS's own.
    """
    if not endpoint:
        return True
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    return f".{host}".endswith(_SORTED) or bool({host, parts.netloc} & set(sorted_hosts))
