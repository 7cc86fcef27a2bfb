"""YAML for fields of known types: a text stays as written, without YAML's conversions (1.10, 0x1F, no, ~)."""

from __future__ import annotations

import re
import types
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

_TAG = "tag:yaml.org,2002:"
_STRING, _NULL, _TIME = f"{_TAG}str", f"{_TAG}null", f"{_TAG}timestamp"


class _Loader(yaml.SafeLoader):
    """Numbers and booleans as in JSON: 1_000, 012, 1:30 and 0x1F are texts, which a numeric field refuses."""


_Loader.yaml_implicit_resolvers = {
    sign: [(tag, pattern) for tag, pattern in found if tag not in (f"{_TAG}int", f"{_TAG}float", f"{_TAG}bool")]
    for sign, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _kind, _pattern, _signs in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+."),
):  # fmt: skip
    _Loader.add_implicit_resolver(f"{_TAG}{_kind}", re.compile(rf"(?:{_pattern})\Z"), list(_signs))


def load(data: bytes | str, kind: Any) -> Any:
    """A YAML document with the fields of ``kind``, a pydantic model or a type.

    Names inside a field (of variables, of a request's fields) are also texts. Raises yaml.YAMLError, ValueError (an
    invalid date), RecursionError.
    """
    loader = _Loader(data)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _mark(node, kind, seen=set())
        return loader.construct_document(node)
    finally:
        loader.dispose()


def field_type(kind: Any, names: list[str]) -> Any:
    """The type of a field, by its path of names; Any if it is unknown."""
    for name in names:
        kind = _of_fields(kind).get(name, Any) if _model(kind) else _value_type(kind)
    return kind


def is_text(kind: Any) -> bool:
    """Whether a field of this type holds only text, or null."""
    return all(one is str or (get_origin(one) is Literal and isinstance(get_args(one)[0], str)) for one in _types(kind))


def takes_null(kind: Any) -> bool:
    """Whether a field of this type may be null, which means its default."""
    return type(None) in _alternatives(kind)


def _mark(node: yaml.Node, kind: Any, seen: set[int]) -> None:
    """Tag plain scalars of text fields as texts before they are constructed."""
    if id(node) in seen:  # an alias keeps the type of its first occurrence
        return
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        plain = node.style is None and node.tag.startswith(_TAG)
        null = node.tag == _NULL and (takes_null(kind) or not _types(kind))
        if plain and not null and ((kind is not Any and is_text(kind)) or (kind is Any and node.tag == _TIME)):
            node.tag = _STRING
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            _mark(child, _value_type(kind), seen)
    elif isinstance(node, yaml.MappingNode):
        model = _model(kind)
        fields = _of_fields(kind)
        for key, value in node.value:
            if model is None and isinstance(key, yaml.ScalarNode) and key.style is None and key.value != "<<":
                key.tag = _STRING
            merged = isinstance(key, yaml.ScalarNode) and key.value == "<<"
            named = model and isinstance(key, yaml.ScalarNode)
            inner = fields.get(key.value, object) if named else object if model else _value_type(kind)
            _mark(value, kind if merged else inner, seen)


def _alternatives(kind: Any) -> list[Any]:
    if get_origin(kind) is Annotated:
        return _alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [one for part in get_args(kind) for one in _alternatives(part)]
    return [kind]


def _types(kind: Any) -> list[Any]:
    return [one for one in _alternatives(kind) if one is not type(None)]


def _model(kind: Any) -> type[BaseModel] | None:
    return next((one for one in _types(kind) if isinstance(one, type) and issubclass(one, BaseModel)), None)


def _of_fields(kind: Any) -> dict[str, Any]:
    model = _model(kind)
    if model is None:
        return {}
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _value_type(kind: Any) -> Any:
    """The type of the values in a list or dictionary."""
    for one in _types(kind):
        origin, inner = get_origin(one), [part for part in get_args(one) if part is not Ellipsis]
        if origin in (dict, list, tuple) and inner:
            return inner[-1]
    return Any
