"""Where Prefect's settings on this machine come from: variables, files in the current folder, profiles.

Prefect is not imported: wrong settings would break its import, or be reported later in other words.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

from tasks.domain.errors import CallError, Problem
from tasks.domain.prefect_settings import DOTENV, OWN, PROJECT, Given, first_of, of_toml, of_variables, wrong_settings

_PROFILES = ("cloud", "ephemeral", "local", "test")
"""Prefect's built-in profiles."""


def check_prefect_settings() -> None:
    """Raises CallError if Prefect could not read or use its settings."""
    if problems := wrong_prefect(os.environ):
        raise CallError(problems)


def given_settings(environment: Mapping[str, str]) -> tuple[list[Given], list[Problem]]:
    """The given settings, in Prefect's order of precedence, and the problems of their files."""
    given, wrong = of_variables(environment), []
    try:
        if os.path.isfile(DOTENV):
            from dotenv import dotenv_values  # imported late: few folders have this file

            given += of_variables(dotenv_values(DOTENV), DOTENV)
    except (OSError, ValueError) as error:
        wrong.append(_unreadable(DOTENV, error))
    for file in (OWN, PROJECT):
        try:
            text = Path(file).read_text(encoding="utf-8") if os.path.lexists(file) else ""
        except (OSError, ValueError) as error:
            wrong.append(_unreadable(file, error))
            continue
        found, problems = of_toml(file, text)
        given += found
        wrong += problems
    return given, wrong


def _unreadable(file: str, error: Exception) -> Problem:
    why = (error.strerror or str(error)) if isinstance(error, OSError) else "it is no text in UTF-8"
    return Problem(file, None, f"should be a file that can be read, since Prefect reads its settings there: {why}")


def wrong_prefect(environment: Mapping[str, str]) -> list[Problem]:
    """Problems of Prefect's settings themselves, from all sources."""
    given, wrong = given_settings(environment)
    path = first_of(given, "PREFECT_PROFILES_PATH")
    return [*wrong, *wrong_settings(given), *_profiles(environment, str(path.value) if path else "")]


def _profiles(environment: Mapping[str, str], given: str) -> Iterator[Problem]:
    home = environment.get("PREFECT_HOME") or "~/.prefect"
    path = Path(given or f"{home}/profiles.toml")
    known, wrong = set(_PROFILES), ""
    try:
        held = tomllib.loads(path.expanduser().read_text(encoding="utf-8")).get("profiles", {})
        if isinstance(held, dict):
            known |= set(held)
        else:
            wrong = "profiles is no table"
    except (OSError, RuntimeError):
        pass  # no such file, as on most machines
    except ValueError as error:  # neither UTF-8 nor TOML
        wrong = str(error)
    if wrong:
        yield Problem("PREFECT_PROFILES_PATH", str(path), f"should hold Prefect's profiles as TOML: {wrong}")
        return
    profile = environment.get("PREFECT_PROFILE", "")
    if profile and profile not in known:
        yield Problem("PREFECT_PROFILE", profile, f"is no profile of {path}: there are {', '.join(sorted(known))}")
