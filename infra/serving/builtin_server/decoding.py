"""Decoding of a request's body to the argument of ``_preprocess``."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import orjson

from .multipart import boundary_of, parse_multipart


def decode_request(body: bytes, content_type: str, query: bytes) -> Any:
    """The data of one request.

    - ``multipart/form-data``: ``{form_key: {file_name: file_object}}``, or the text of a part without a file name.
    - no body: the query parameters, ``{name: text}`` (for services declared with method get).
    - everything else is JSON, whatever its Content-Type: model packages themselves misspell it ``applicaton/json``,
      or declare ``multipart/form-data`` (then without a boundary) for JSON, and curl labels it a form.

    Raises ValueError for a body of any other kind.
    """
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        boundary = boundary_of(content_type)
        if boundary is not None:
            return parse_multipart(body, boundary)
    elif not body and not content_type:
        return dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"the body (Content-Type {content_type or 'not given'}) is not JSON: {error}") from None
