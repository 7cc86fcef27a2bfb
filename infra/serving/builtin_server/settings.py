"""The server's settings: three environment variables and the package's ``config.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

DEFAULT_HEALTH_URL = "/health"


class StartError(Exception):
    """The server cannot start; the message is the last line that it prints."""


@dataclass(frozen=True)
class Settings:
    """Everything that is fixed before the model is loaded.

    ``folder`` holds ``config.json``; ``health_path`` and the keys of ``predict_methods`` are URL paths, the values
    of ``predict_methods`` the upper-case HTTP methods that are accepted there.
    """

    folder: Path
    port: int
    model_name: str
    threads: int
    health_path: str
    predict_methods: Mapping[str, frozenset[str]]


def read_settings(folder: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of the package in ``folder``. Raises StartError, naming the variable or the file."""
    config = _read_config(folder / "config.json")
    health = config.get("health")
    health_url = health.get("url") if isinstance(health, dict) else None
    return Settings(
        folder=folder,
        port=_whole_number(environment, "PORT", None, 65535),
        model_name=environment.get("MODEL_NAME") or folder.name,
        threads=_whole_number(environment, "MODEL_SERVER_THREADS", 1, 1024),
        health_path=_path(health_url or DEFAULT_HEALTH_URL),
        predict_methods=_predict_methods(config.get("apis")),
    )


def _whole_number(environment: Mapping[str, str], name: str, default: int | None, largest: int) -> int:
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= largest):
        raise StartError(f"environment variable {name} = {text!r}: a whole number from 1 to {largest} is needed")
    return int(text)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        # Editors on Windows put a byte order mark before the text.
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise StartError(
            f"there is no config.json in {path.parent}: start the server in the package's folder"
        ) from None
    except (OSError, ValueError) as error:
        raise StartError(f"{path} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise StartError(f"{path} must hold one JSON object")
    return config


def _predict_methods(apis: object) -> dict[str, frozenset[str]]:
    """The predict paths. Without a usable ``apis``, the format's own default applies: POST on ``/``."""
    methods: dict[str, frozenset[str]] = {}
    for api in apis if isinstance(apis, list) else []:
        if isinstance(api, dict):
            path = _path(api.get("url") or "/")
            methods[path] = methods.get(path, frozenset()) | {str(api.get("method") or "post").upper()}
    return methods or {"/": frozenset({"POST"})}


def _path(url: object) -> str:
    """The path of a ``url`` as the server sees it in a request: decoded, with one leading slash, without a query."""
    return "/" + unquote(urlsplit(str(url)).path).lstrip("/")
