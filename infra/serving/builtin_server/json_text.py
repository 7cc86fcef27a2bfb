"""JSON bodies: as a dict, or as the text that services of machine learning types expect."""

import json
from typing import Any

__all__ = ["JsonText", "orjson", "parse_json"]

try:
    # An answer of 20 MB: 0.03 s, with the standard library 0.7 s, in which the health check gets no answer.
    import orjson
except ImportError:  # an old Python, for which there is none
    orjson = None  # type: ignore[assignment, unused-ignore]


def parse_json(text: bytes) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError."""
    if orjson is not None:
        return orjson.loads(text)
    try:
        return json.loads(text.decode("utf-8"), parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse(word: str) -> Any:
    raise ValueError("%s is no JSON" % word)


class JsonText(str):
    """A JSON text that can also be asked like the object it holds.

    Services of XGBoost, scikit-learn and Spark begin with ``json.loads(data)``: the original hands them the text.
    Others take ``data["data"]``.
    """

    value: Any

    def __new__(cls, text: str, value: Any) -> "JsonText":
        """Create the text, and keep what it means."""
        new = super().__new__(cls, text)
        new.value = value
        return new

    def __getitem__(self, key: Any) -> Any:
        """An entry of the object or the list; without either, characters of the text."""
        if isinstance(self.value, dict) and not isinstance(key, (int, slice)):
            return self.value[key]
        if isinstance(self.value, list) and isinstance(key, int):
            return self.value[key]
        return super().__getitem__(key)

    def __bool__(self) -> bool:
        """Whether the value is true: the text of an empty object is not."""
        return bool(self.value)

    def __getattr__(self, name: str) -> Any:
        """``get``, ``items``, ``keys`` ... of the object."""
        if isinstance(self.value, dict) and not name.startswith("_"):
            return getattr(self.value, name)
        raise AttributeError("%r object has no attribute %r" % (type(self).__name__, name))
