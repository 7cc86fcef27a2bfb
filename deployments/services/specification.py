"""Reading a specification: a YAML (or JSON) file, and overrides of its fields."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.clients import yaml_fields
from tasks.domain.errors import Problem, SpecificationError
from tasks.domain.relative_paths import is_relative_path
from tasks.domain.service import BatchService

LONGEST = 16 << 20
"""Size limit of a specification, in bytes."""
PIPE_SECONDS = 10.0
"""How long to wait for the first data of a pipe."""


def read_specification(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The fields of a specification file, with ``field=value`` overrides (``a.b=1`` sets a nested field).

    Text is taken literally, in the file and in overrides; other values are YAML.

    Relative local paths are relative to the file's folder, and in overrides to the working directory.
    Raises SpecificationError.
    """
    try:
        document = yaml_fields.load(_bytes_of(path), BatchService)
    except FileNotFoundError:
        raise SpecificationError([Problem("SPEC", str(path), "there is no such file")]) from None
    except IsADirectoryError:
        raise SpecificationError([Problem("SPEC", str(path), "is a folder; a YAML file is needed")]) from None
    except OSError as error:
        raise SpecificationError([Problem("SPEC", str(path), f"cannot be read: {error.strerror}")]) from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:  # ValueError: 31 February, for example
        detail = " ".join(str(error).split())
        raise SpecificationError([Problem("SPEC", str(path), f"should be a YAML file: {detail}")]) from None
    if not isinstance(document, dict) or not all(isinstance(name, str) for name in document):
        raise SpecificationError([Problem("SPEC", str(path), "should hold fields: name: value")])
    document = absolute(document, path.parent)
    override(document, overrides)
    return document


def _bytes_of(path: Path) -> bytes:
    """The content of a file. Reading is bounded by ``LONGEST``, since a pipe or device may never end."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise IsADirectoryError
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode) and not select.select([descriptor], [], [], PIPE_SECONDS)[0]:
            raise ValueError("nothing comes out of this pipe")
        os.set_blocking(descriptor, True)
        data = file.read(LONGEST + 1)
    if len(data) > LONGEST:
        raise ValueError(f"it has more than {LONGEST} bytes")
    return data


def absolute(fields: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The fields of a specification, with relative local paths made absolute from ``folder``."""
    return {
        name: os.path.normpath(folder.absolute() / value) if is_relative_path(name, value) else value
        for name, value in fields.items()
    }


def override(fields: dict[str, Any], overrides: Sequence[str]) -> None:
    """Apply ``field=value`` overrides (the field's type decides: text or YAML). Raises SpecificationError."""
    for one in overrides:
        _override(fields, one)


def _override(document: dict[str, Any], override: str) -> None:
    field, equals, text = override.partition("=")
    if not equals or not field.strip():
        raise SpecificationError([Problem("--set", override, "should be field=value")])
    *outer, last = field.strip().split(".")
    value = _value(text.strip() if field.endswith(" ") else text, yaml_fields.field_type(BatchService, [*outer, last]))
    target: Any = document
    for name in outer:
        target = target.setdefault(name, {})
        if not isinstance(target, dict):
            raise SpecificationError([Problem("--set", field, f"{name} holds no fields")])
    if not outer and is_relative_path(last, value):
        value = os.path.normpath(Path.cwd() / value)
    target[last] = value


def _value(text: str, kind: Any) -> Any:
    """The value for a field of this type: text taken literally, without its quotes if quoted; other types as YAML."""
    try:
        value = yaml_fields.load(text, kind) if text else ""
    except (yaml.YAMLError, ValueError, RecursionError):
        return text
    if kind is Any or not yaml_fields.is_text(kind):
        return value
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    config = isinstance(value, dict) and text.startswith("{")  # for model_config; other text fields refuse it
    return value if value is None or quoted or config else text
