"""The environment of a model server, and other texts, as YAML files and forms give them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tasks.domain.instance import server_environment

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INSTALLERS = re.compile(r"UV_(?!PUBLISH_)\w+|(HTTPS?|ALL|NO)_PROXY|XDG_(CACHE|CONFIG|DATA)_HOME", re.IGNORECASE)
"""Variables that uv is set up by."""
_OF_AN_INDEX = re.compile(r"_(USERNAME|PASSWORD|TOKEN)\Z", re.IGNORECASE)
_WITH_PASSWORD = re.compile(r"://[^/\s@]+@")


def as_text(value: Any) -> Any:
    """YAML reads numbers wherever it can. A whole one is taken as its text; 1.10 has lost its zero already."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, (bool, float)):
        raise ValueError("should be text: write it in quotes")
    return value


def environment_texts(value: Any) -> Any:
    """Names and values as texts; what is no mapping as it is. Raises ValueError naming all that is wrong, no value."""
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
    """The environment in which a package's dependencies are installed, and the first variable in it that is secret.

    It is a model server's, and what uv is set up by: its indexes may have a password. Empty: nothing is secret.
    """
    given = {name: value for name, value in own.items() if _INSTALLERS.fullmatch(name)}
    secret = (name for name in sorted(given) if _OF_AN_INDEX.search(name) or _WITH_PASSWORD.search(given[name]))
    return server_environment(own, given), next(secret, "")
