"""The request that carries a file: as a part of a form, in Base64 in a JSON body, or as the bare body."""

from __future__ import annotations

import base64
import json
from typing import Any, Protocol

from tasks.domain.constants import constant_value, has_constant
from tasks.domain.mapping import Path, Schema, around_leaf, file_leaf, schema_type, walk
from tasks.domain.package import Api, Serving
from tasks.domain.request import JSON, Body, FileForm

ENCODING = "x-thresher-encoding"
"""Keyword of a string leaf in which a file's bytes are sent; its value is ``base64``."""
_BARE = ("application/octet-stream", "image/", "audio/", "video/")


class FileRequest(Protocol):
    """Builds the body that carries a file."""

    def body(self, file_name: str, data: bytes) -> Body:
        """The body for ``data``."""


class BareFile:
    """The file's bytes are the body."""

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type

    def body(self, file_name: str, data: bytes) -> Body:
        """The body for ``data``."""
        return Body(self._content_type, (data,))


class Base64Json:
    """A JSON body with the file in one of its texts; its other fields are constants."""

    def __init__(self, schema: Schema) -> None:
        head, tail = around_leaf(schema, base64_leaf(schema))
        self._head, self._tail = f'{head}"'.encode(), f'"{tail}'.encode()

    def body(self, file_name: str, data: bytes) -> Body:
        """The body for ``data``."""
        return Body(JSON, (self._head, base64.b64encode(data), self._tail))


def takes_file(api: Api) -> bool:
    """Whether a request to the API carries one file; else it is made from a table's rows."""
    return api.file_leaf is not None or base64_leaf(api.request.data) is not None


def file_request(api: Api, serving: Serving) -> FileRequest | None:
    """How a request to the API carries a file; None if it carries rows. The built-in model server reads forms."""
    schema = api.request.data
    leaf = file_leaf(schema)
    if leaf is None:
        return Base64Json(schema) if base64_leaf(schema) is not None else None
    content_type = api.request.content_type.strip().lower()
    if serving != "built-in" and content_type.startswith(_BARE):
        return BareFile(content_type)
    return FileForm(leaf, {name: _form_text(node, kind) for name, node, kind in _beside(schema) if has_constant(node)})


def left_out(api: Api) -> tuple[list[str], list[str]]:
    """Names of fields beside the file that have no constant: those not required, and those required."""
    missing = [(name, node) for name, node, _ in _beside(api.request.data) if not has_constant(node)]
    required = _required(api.request.data)
    return (
        [name for name, node in missing if not _is_required(name, node, required)],
        [name for name, node in missing if _is_required(name, node, required)],
    )


def base64_leaf(schema: Any) -> Path | None:
    """The leaf that a file's bytes are sent in as Base64."""
    for path, node, _ in walk(schema):
        if str(node.get(ENCODING, "")).strip().lower() == "base64":
            return path
    return None


def _beside(schema: Any) -> list[tuple[str, Schema, str | None]]:
    """The leaves beside the file, by the name of their form field."""
    encoded = base64_leaf(schema)
    found = []
    for path, node, kind in walk(schema):
        names = [part for part in path if isinstance(part, str)]
        if kind != "file" and path != encoded and names:
            found.append((names[-1], node, kind))
    return found


def _form_text(node: Schema, kind: str | None) -> str:
    value = constant_value(node, kind)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _required(schema: Any) -> set[str]:
    if not isinstance(schema, dict):
        return set()
    own = schema.get("required")
    found = {str(name) for name in own} if isinstance(own, list) else set()
    children = schema.get("properties")
    for child in children.values() if isinstance(children, dict) else ():
        found |= _required(child) if schema_type(child) == "object" else set()
    return found


def _is_required(name: str, node: Schema, required: set[str]) -> bool:
    return name in required or node.get("required") is True
