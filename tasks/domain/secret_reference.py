"""References to Prefect Secret blocks in the values of a service's environment and headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from tasks.domain.instance import GivenEnvironment

SECRET_REFERENCE = re.compile(r"\{\{\s*prefect\.blocks\.secret\.([a-z0-9-]+)\s*\}\}")
"""A block's name has only characters that Prefect allows."""
_MEANT = re.compile(r"\{\{[^{}]*?(?<![\w.])prefect\.(?:[^{}]*\}\}|[\w.-]*)", re.IGNORECASE)
"""Text intended as a reference to a Prefect object, even if its end is missing."""


def check_meant(text: str) -> str:
    """``text`` unchanged. Raises ValueError for a malformed reference, which the model server would get unresolved."""
    wrong = [found[0] for found in _MEANT.finditer(text) if SECRET_REFERENCE.fullmatch(found[0]) is None]
    if not wrong:
        return text
    expected = "should be {{ prefect.blocks.secret.NAME }}, NAME of lower-case letters, digits and '-'"
    if not all("prefect.blocks.secret" in one for one in wrong):
        expected += "; nothing but Secret blocks can be referred to"
    raise ValueError(f"refers to {', '.join(map(repr, wrong))}: {expected}")


def text_of(value: object) -> str:
    """A block's value for an environment: text unchanged, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def resolved(environment: Mapping[str, str], values: Mapping[str, object], hidden: list[str]) -> GivenEnvironment:
    """An environment with each reference replaced by the value of its block.

    The values of the variables ``hidden`` are secrets, and those of all blocks also: a program that gets
    ``postgres://user:PASSWORD@host`` may print the password alone.
    """
    texts = {name: text_of(value) for name, value in values.items()}
    given = {name: SECRET_REFERENCE.sub(lambda match: texts[match[1]], text) for name, text in environment.items()}
    secrets = [given[name] for name in hidden]
    for name, text in texts.items():
        secrets += [text, *_leaves(values[name])]
    return GivenEnvironment(given, secrets=tuple(dict.fromkeys(secrets)))


def _leaves(value: object) -> Iterator[str]:
    """The texts inside JSON, given as a value or as its text."""
    if isinstance(value, str):
        try:
            held = json.loads(value)
        except (ValueError, RecursionError):
            return
        if not isinstance(held, (dict, list, str)):
            return
        value = [held] if isinstance(held, str) else held
    waiting: list[object] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one
