"""Decoding of a request's body to the argument of ``_preprocess``."""

from typing import Any
from urllib.parse import parse_qsl

from .json_text import JsonText, parse_json
from .multipart import boundary_of, parse_multipart


def decode_request(body: bytes, content_type: str, query: str, as_text: bool = False) -> Any:
    """The data of one request.

    - ``multipart/form-data``: ``{form_key: {file_name: file_object}}``, or the text of a part without a file name.
    - no body: the query parameters, ``{name: text}`` (for services declared with method get).
    - everything else is JSON, whatever its Content-Type: model packages themselves misspell it ``applicaton/json``,
      or declare ``multipart/form-data`` (then without a boundary) for JSON, and curl labels it a form.

    The query parameters are added to a form or a JSON object. ``as_text``: JSON comes as a JsonText. Raises ValueError
    for a body of any other kind.
    """
    parameters = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
    if content_type.partition(";")[0].strip().lower() == "multipart/form-data":
        boundary = boundary_of(content_type)
        if boundary is not None:
            form = parse_multipart(body, boundary)
            return {**parameters, **form} if parameters else form
    elif not body and not content_type:
        return parameters
    try:
        value = parse_json(body)
    except ValueError as error:
        raise ValueError("the body (Content-Type %s) is not JSON: %s" % (content_type or "not given", error)) from None
    if parameters and isinstance(value, dict):
        value = {**parameters, **value}
    return JsonText(body.decode("utf-8"), value) if as_text else value
