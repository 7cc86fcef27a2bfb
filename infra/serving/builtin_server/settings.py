"""The server's settings: environment variables and the package's ``config.json``."""

import json
import os
from pathlib import Path
from typing import Any, Dict, FrozenSet, Mapping, NamedTuple, Optional
from urllib.parse import unquote, urlsplit

DEFAULT_HEALTH_URL = "/health"


class StartError(Exception):
    """The server cannot start; the message is the last line that it prints."""


class Settings(NamedTuple):
    """Everything that is fixed before the model is loaded.

    ``folder`` holds ``config.json``; ``health_path`` and the keys of ``predict_methods`` are URL paths, the values
    of ``predict_methods`` the upper-case HTTP methods that are accepted there. ``text_as_json``: a str is answered as
    a JSON string.
    """

    folder: Path
    port: int
    model_name: str
    threads: int
    model_type: str
    health_path: str
    predict_methods: Mapping[str, FrozenSet[str]]
    text_as_json: bool


def read_settings(folder: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of the package in ``folder``. Raises StartError, naming the variable or the file."""
    config = _read_config(folder / "config.json", environment.get("MODEL_CONFIG", ""))
    health = config.get("health")
    health_url = health.get("url") if isinstance(health, dict) else None
    apis = [api for api in config.get("apis") or () if isinstance(api, dict)]
    return Settings(
        folder=folder,
        port=_whole_number(environment, "PORT", None, 65535),
        model_name=environment.get("MODEL_NAME") or folder.name,
        threads=_whole_number(environment, "MODEL_SERVER_THREADS", 1, 1024),
        model_type=str(config.get("model_type") or ""),
        health_path=_path(health_url or DEFAULT_HEALTH_URL),
        predict_methods=_predict_methods(apis),
        text_as_json=any("json" in _response_type(api).lower() for api in apis),
    )


def _whole_number(environment: Mapping[str, str], name: str, default: Optional[int], largest: int) -> int:
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    if not (text.encode("utf-8", "replace").isdigit() and 1 <= int(text) <= largest):
        raise StartError("environment variable %s = %r: a whole number from 1 to %d is needed" % (name, text, largest))
    return int(text)


def _read_config(path: Path, given: str) -> Dict[str, Any]:
    """``given``: its content as JSON, from who can also read it where it has comments; else the file is read."""
    try:
        # Editors on Windows put a byte order mark before the text.
        config = json.loads(given or path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise StartError(
            "there is no config.json in %s: start the server in the package's folder" % path.parent
        ) from None
    except (OSError, ValueError) as error:
        raise StartError("%s cannot be read: %s" % (path, error)) from None
    if not isinstance(config, dict):
        raise StartError("%s must hold one JSON object" % path)
    return config


def _response_type(api: Dict[str, Any]) -> str:
    response = api.get("response")
    return str(response.get("Content-type", "")) if isinstance(response, dict) else ""


def _predict_methods(apis: Any) -> Dict[str, FrozenSet[str]]:
    """The predict paths. Without a usable ``apis``, the format's own default applies: POST on ``/``."""
    methods: Dict[str, FrozenSet[str]] = {}
    for api in apis:
        path = _path(api.get("url") or "/")
        methods[path] = methods.get(path, frozenset()) | {str(api.get("method") or "post").upper()}
    return methods or {"/": frozenset({"POST"})}


def _path(url: object) -> str:
    """The path of a ``url`` as the server sees it in a request: decoded, with one leading slash, without a query."""
    return "/" + unquote(urlsplit(str(url)).path).lstrip("/")
