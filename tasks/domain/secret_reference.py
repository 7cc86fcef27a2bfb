"""References to Prefect Secret blocks in the values of a service's environment and headers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

from tasks.domain.instance import GivenEnvironment

SECRET_REFERENCE = re.compile(r"\{\{\s*prefect\.blocks\.secret\.([a-z0-9-]+)\s*\}\}")
"""A block's name has the letters that Prefect allows it."""
_MEANT = re.compile(r"\{\{[^{}]*?(?<![\w.])prefect\.(?:[^{}]*\}\}|[\w.-]*)", re.IGNORECASE)
"""Whatever was meant as a reference to something of Prefect's, also if its end is missing."""


def check_meant(text: str) -> str:
    """``text`` itself. Raises ValueError for a reference that would reach the model server as it stands there."""
    wrong = [found[0] for found in _MEANT.finditer(text) if SECRET_REFERENCE.fullmatch(found[0]) is None]
    if not wrong:
        return text
    expected = "should be {{ prefect.blocks.secret.NAME }}, NAME of lower-case letters, digits and '-'"
    if not all("prefect.blocks.secret" in one for one in wrong):
        expected += "; nothing but Secret blocks can be referred to"
    raise ValueError(f"refers to {', '.join(map(repr, wrong))}: {expected}")


def text_of(value: object) -> str:
    """A block's value as it stands in an environment: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def resolved(environment: Mapping[str, str], values: Mapping[str, object], hidden: list[str]) -> GivenEnvironment:
    """An environment with each reference replaced by the value of its block.

    Secret are the values of the variables ``hidden``, and those of all blocks: a program that is given
    ``postgres://user:PASSWORD@host`` may well print the password alone.
    """
    texts = {name: text_of(value) for name, value in values.items()}
    given = {name: SECRET_REFERENCE.sub(lambda match: texts[match[1]], text) for name, text in environment.items()}
    secrets = [given[name] for name in hidden]
    for name, text in texts.items():
        secrets += [text, *_leaves(values[name])]
    return GivenEnvironment(given, secrets=tuple(dict.fromkeys(secrets)))


def _leaves(value: object) -> Iterator[str]:
    """The texts inside JSON, be it a value or its text."""
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
