"""Fields of a specification that hold relative local paths, which are meaningless in another working directory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.domain.errors import Problem
from tasks.domain.service import is_package_address

_PATHS = ("input_path", "output_path", "model", "model_config", "failed_of")


def is_relative_path(field: str, value: object) -> bool:
    """Whether a field of this name and value is a relative local path."""
    if field not in _PATHS or not isinstance(value, str):
        return False
    if "://" in value or value.startswith(("/", "~")) or not value.strip():
        return False
    if field == "model_config" and value.lstrip().startswith("{"):
        return False  # the JSON text itself
    return field != "model" or is_package_address(value)


def relative_paths(fields: Mapping[str, Any]) -> list[Problem]:
    """A problem for each relative local path of a specification."""
    expected = "should be absolute, or begin with s3:// or obs://: relative paths are those of a specification file"
    return [Problem(name, value, expected) for name, value in fields.items() if is_relative_path(name, value)]
