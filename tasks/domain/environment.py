"""The environment of a model server, and other texts, as given in YAML files and forms."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tasks.domain.instance import server_environment

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSTALLERS = re.compile(r"UV_(?!PUBLISH_)\w+|(HTTPS?|ALL|NO)_PROXY|XDG_(CACHE|CONFIG|DATA)_HOME", re.IGNORECASE)
"""Variables that configure uv."""
_OF_AN_INDEX = re.compile(r"_(USERNAME|PASSWORD|TOKEN)\Z", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"://[^/\s@]+@")


def as_text(value: Any) -> Any:
    """Text that YAML may have read as a number: a whole one is converted, others are refused (1.10 loses its zero)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (bool, float)):
        raise ValueError("should be text: write it in quotes")
    return value


def environment_texts(value: Any) -> Any:
    """Names and values as texts; no change if not a mapping. Raises ValueError with all problems, without values."""
    if not isinstance(value, dict):
        return value
    wrong = [
        f"{name!r} is not a variable's name: letters, digits and '_', no digit first"
        for name in value
        if _VARIABLE.fullmatch(str(name)) is None
    ]
    texts: dict[Any, Any] = {}
    for name, held in value.items():
        try:
            texts[name] = as_text(held)
            if not isinstance(texts[name], str):
                raise ValueError("should be text")
            if "\0" in texts[name]:
                raise ValueError("should have no NUL character")
        except ValueError as error:
            wrong.append(f"the value of {name} {error}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return texts


def installer_environment(own: Mapping[str, str]) -> tuple[dict[str, str], str]:
    """The environment in which a package's dependencies are installed, and the name of its first secret variable.

    It is a model server's environment plus uv's configuration, whose indexes may have a password. The name is empty if
    nothing is secret.
    """
    given = {name: value for name, value in own.items() if _INSTALLERS.fullmatch(name)}
    secret = (name for name in sorted(given) if _OF_AN_INDEX.search(name) or _WITH_PASSWORD.search(given[name]))
    return server_environment(own, given), next(secret, "")
