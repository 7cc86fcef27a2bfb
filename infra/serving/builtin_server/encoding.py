"""Encoding of the result of ``_postprocess`` to the bytes of the response."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Callable
from enum import Enum
from typing import Any
from uuid import UUID

import orjson

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

_OPTIONS = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_LISTING_METHODS = ("tolist", "item", "numpy")
"""Methods of arrays and scalars of numpy, PyTorch, TensorFlow, pandas ...: recognized without importing these."""


def encode_answer(answer: Any) -> tuple[str, bytes]:
    """Content type and body of a response.

    str and bytes are sent unchanged. Everything else is JSON, where arrays become lists, sets sorted lists, bytes UTF-8
    text (or Base64 if they are not UTF-8), dates ISO 8601 text, and NaN and infinity, which JSON lacks, null. Raises
    TypeError for anything else, with its place in the answer.
    """
    if isinstance(answer, str):
        return TEXT, answer.encode("utf-8", "backslashreplace")
    if isinstance(answer, (bytes, bytearray, memoryview)):
        return BYTES, bytes(answer)
    try:
        return JSON, orjson.dumps(answer, default=_plain, option=_OPTIONS)
    except TypeError:
        # Rare: numpy numbers as keys, integers beyond 64 bits, broken Unicode, or an answer without a JSON form.
        return JSON, json.dumps(_deeply_plain(answer, "answer"), separators=(",", ":"), allow_nan=False).encode()


def _text(value: bytes | bytearray | memoryview) -> str:
    raw = bytes(value)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode("ascii")


def _ordered(value: set[Any] | frozenset[Any]) -> list[Any]:
    try:
        return sorted(value)
    except TypeError:  # 1 and "a" have no order
        return sorted(value, key=repr)


_CONVERSIONS: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
    ((bytes, bytearray, memoryview), _text),
    ((set, frozenset), _ordered),
    # The JSON writers support these types, but not all of their subclasses.
    ((tuple, list), list),
    (float, float),
    (Enum, lambda value: value.value),
    (UUID, str),
)


def _plain(value: Any) -> Any:
    """Convert a foreign object one step towards JSON; raises TypeError for unknown types."""
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name in (*_LISTING_METHODS, "isoformat"):
        method = getattr(value, name, None)
        if callable(method):
            plain = method()
            if plain is not value:
                return plain
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON")


def _deeply_plain(value: Any, place: str) -> Any:
    """``value`` converted to types that the json module can write. ``place`` names it in an error."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(key, place): _deeply_plain(each, f"{place}[{key!r}]") for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_deeply_plain(each, f"{place}[{number}]") for number, each in enumerate(value)]
    try:
        plain = _plain(value)
    except TypeError as error:
        raise TypeError(f"{place}: {error}; convert it in _postprocess") from None
    return _deeply_plain(plain, place)


def _key(key: Any, place: str) -> str:
    if isinstance(key, str):
        return key
    plain = _deeply_plain(key, f"a key of {place}")
    if isinstance(plain, (list, dict)):
        raise TypeError(f"a key of {place}: {type(key).__name__} cannot be a key in JSON; convert it in _postprocess")
    return plain if isinstance(plain, str) else json.dumps(plain)
