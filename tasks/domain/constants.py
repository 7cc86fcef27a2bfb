"""Parts of every request that are the same: ``const``, ``default`` or the only value of ``enum`` in its schema."""

from __future__ import annotations

import json
from typing import Any

from tasks.domain.cells import converter

_CONVERTED = ("number", "integer", "boolean")


def has_constant(schema: Any) -> bool:
    """Whether a node of a schema has a value of its own and no ``index``."""
    return isinstance(schema, dict) and schema.get("index") is None and _value(schema) is not None


def is_fixed(schema: Any) -> bool:
    """Whether a node can have one value only; a ``default`` gives way to a column that has the field's name."""
    return isinstance(schema, dict) and ("const" in schema or _only_one(schema))


def constant_value(schema: dict[str, Any], kind: str | None) -> Any:
    """The value of a node that :func:`has_constant`. Numbers and booleans that are written as text become such."""
    held = _value(schema)
    value = held[0] if held is not None else None
    if isinstance(value, str) and kind in _CONVERTED:
        try:
            return json.loads(converter(kind, "refuse", place_kept=True)(value))
        except ValueError:
            return value
    return value


def constant_text(schema: dict[str, Any], kind: str | None) -> str:
    """The JSON of that value. NaN and infinity, which JSON lacks, are null."""
    value = constant_value(schema, kind)
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        text.encode()
    except ValueError as error:  # half of a surrogate pair can only be escaped
        return json.dumps(value, separators=(",", ":")) if isinstance(error, UnicodeEncodeError) else "null"
    return text


def _value(schema: dict[str, Any]) -> tuple[Any] | None:
    for name in ("const", "default"):
        if name in schema:
            return (schema[name],)
    return (schema["enum"][0],) if _only_one(schema) else None


def _only_one(schema: dict[str, Any]) -> bool:
    values = schema.get("enum")
    return isinstance(values, list) and len(values) == 1
