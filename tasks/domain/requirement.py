"""A requirement of ``dependencies`` in config.json. It becomes an argument of the installer, and must not be more."""

from __future__ import annotations

import re

PLATFORM_FOLDER = "/home/mind/model/"
"""Where the package's folder is on the original platform: dependencies name wheels in it."""
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._, -]*\])?"
_VERSION = r"v?[0-9][A-Za-z0-9.!+_-]*(?:\.\*)?"
_BOUND = rf"(?:===?|~=|!=|[<>]=?) *{_VERSION}"
_DISTRIBUTION = re.compile(rf"{_NAME}(?: *{_BOUND}(?: *, *{_BOUND})*)?\Z")
_ONE_VERSION = re.compile(rf"{_VERSION}\Z")
_FILE = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9._+!-]*(?:/[A-Za-z0-9_][A-Za-z0-9._+!-]*)*\.(?:whl|zip|tar\.gz|tar\.bz2|tgz)\Z"
)


def checked_name(text: str) -> str:
    """A ``package_name`` without blanks around it. Raises ValueError if an installer could take it for more."""
    name = text.strip()
    if file_of(name) is not None or (_DISTRIBUTION.match(name) and not name.startswith(PLATFORM_FOLDER)):
        return name
    raise ValueError(
        "should be the name of a Python package, as in scikit-learn, or a wheel of this model package, as in "
        f"{PLATFORM_FOLDER}my-1.0-py3-none-any.whl; options and addresses are not installed"
    )


def checked_version(text: str) -> str:
    """A ``package_version`` without blanks around it. Raises ValueError if it is no version."""
    version = text.strip()
    if not _ONE_VERSION.match(version):
        raise ValueError("should be a version, as in 1.20.0; put ATLEAST or ATMOST into restraint")
    return version


def file_of(name: str) -> str | None:
    """The path, below the model package, of the file that a ``package_name`` means; None if it means a distribution."""
    path = name.removeprefix(PLATFORM_FOLDER).removeprefix("./")
    return path if _FILE.match(path) else None
