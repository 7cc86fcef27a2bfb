"""What is odd about a request's schema, though it can be used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tasks.domain.mapping import Field, Path, element_schemas, properties, schema_type, walk


def odd_types(schema: Any) -> list[str]:
    """Warnings about types in a request's schema that are not JSON Schema's."""
    return [
        f"{Field(path, '', -1).name}: the type {declared!r} is read as {kind}"
        for path, node, kind in walk(schema)
        if isinstance(declared := node.get("type"), str) and kind and declared.strip().lower() != kind
    ]


def short_arrays(schema: Any) -> list[str]:
    """Warnings about arrays that are sent with fewer elements than the schema asks for: a row fills those it names."""
    return [
        f"request of the model: {Field(path, '', -1).name} should have at least {least} elements (minItems), and is "
        f"sent with {there}"
        for path, least, there in _arrays(schema, ())
        if least > there
    ]


def _arrays(schema: Any, path: Path) -> Iterator[tuple[Path, int, int]]:
    kind = schema_type(schema)
    if kind == "object":
        for name, child in properties(schema).items():
            yield from _arrays(child, (*path, name))
    elif kind == "array":
        elements = element_schemas(schema)
        least = schema.get("minItems")
        if isinstance(least, int):
            yield path, least, len(elements)
        for position, child in enumerate(elements):
            yield from _arrays(child, (*path, position))
