"""Encoding of the result of ``_postprocess`` to the bytes of the response."""

import base64
import json
import math
from enum import Enum
from typing import Any, Callable, Tuple, Union
from uuid import UUID

from .json_text import orjson

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

_LISTING_METHODS = ("tolist", "item", "numpy")
"""Methods of arrays and scalars of numpy, PyTorch, TensorFlow, pandas ...: recognized without importing these."""


def encode_answer(answer: Any, text_as_json: bool = False) -> Tuple[str, bytes]:
    """Content type and body of a response.

    bytes are sent unchanged, and so is a str unless ``text_as_json``. Everything else is JSON in UTF-8, where arrays
    become lists, sets sorted lists, bytes UTF-8 text (or Base64 if they are not UTF-8), dates ISO 8601 text, and NaN
    and infinity, which JSON lacks, null. Raises TypeError for anything else, with its place in the answer.
    """
    if isinstance(answer, str) and not text_as_json:
        return TEXT, answer.encode("utf-8", "backslashreplace")
    if isinstance(answer, (bytes, bytearray, memoryview)):
        return BYTES, bytes(answer)
    return JSON, json_bytes(answer)


def json_bytes(value: Any) -> bytes:
    """``value`` as compact JSON. Raises TypeError with the place of what has no form in JSON."""
    if orjson is not None:
        try:
            options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
            return bytes(orjson.dumps(value, default=_plain, option=options))
        except TypeError:
            pass  # rare: numpy numbers as keys, integers beyond 64 bits, broken Unicode, or what has no form in JSON
    plain = _deeply_plain(value, "answer")
    try:
        return json.dumps(plain, separators=(",", ":"), allow_nan=False, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:  # a half of a character of two halves, which can be written as an escape only
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode("ascii")


def _text(value: Union[bytes, bytearray, memoryview]) -> str:
    raw = bytes(value)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(raw).decode("ascii")


def _ordered(value: Any) -> Any:
    try:
        return sorted(value)
    except TypeError:  # 1 and "a" have no order
        return sorted(value, key=repr)


_CONVERSIONS: Tuple[Tuple[Any, Callable[[Any], Any]], ...] = (
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
    fields = getattr(value, "__dataclass_fields__", None)  # without the module, which Python 3.6 does not have
    if isinstance(fields, dict) and not isinstance(value, type):
        return {name: getattr(value, name) for name in fields}
    for name in (*_LISTING_METHODS, "isoformat"):
        method = getattr(value, name, None)
        if callable(method):
            plain = method()
            if plain is not value:
                return plain
    raise TypeError("%s cannot be sent as JSON" % type(value).__name__)


def _deeply_plain(value: Any, place: str) -> Any:
    """``value`` converted to types that the json module can write. ``place`` names it in an error."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_key(key, place): _deeply_plain(each, "%s[%r]" % (place, key)) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_deeply_plain(each, "%s[%d]" % (place, number)) for number, each in enumerate(value)]
    try:
        plain = _plain(value)
    except TypeError as error:
        raise TypeError("%s: %s; convert it in _postprocess" % (place, error)) from None
    return _deeply_plain(plain, place)


def _key(key: Any, place: str) -> str:
    if isinstance(key, str):
        return key
    plain = _deeply_plain(key, "a key of %s" % place)
    if isinstance(plain, (list, dict)):
        raise TypeError(
            "a key of %s: %s cannot be a key in JSON; convert it in _postprocess" % (place, type(key).__name__)
        )
    return plain if isinstance(plain, str) else json.dumps(plain)
