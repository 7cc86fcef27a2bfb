"""One running copy of the model server: what it is started with, and when it is given up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

MAX_DEATHS_PER_REQUEST = 3
"""A request during which the model server died so often is not sent again."""
MAX_DEATHS_IN_A_ROW = 30
"""An instance that died so often without one answer in between is given up: ten items in a row that kill it."""

_HANDED_ON = {
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "SHELL", "TERM",
    "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
}  # fmt: skip
_HANDED_ON_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "ASCEND_", "OMP_", "MKL_", "OPENBLAS_", "ORT_", "HF_HUB_OFFLINE")


@dataclass(frozen=True, slots=True)
class Launch:
    """What an instance is started with.

    ``command`` is run in ``folder`` with exactly ``environment`` (plus ``PORT``); its values may be secrets, so a
    Launch is never logged.
    """

    command: tuple[str, ...]
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    """Values that must not be shown, should the model server print them."""


def server_environment(own: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a model server: what any program needs of this process's own, and what the service gives.

    Nothing else is handed on: keys of storages, of Prefect, or of the user's shell are not the model's business.
    """
    kept = {name: value for name, value in own.items() if name in _HANDED_ON or name.startswith(_HANDED_ON_PREFIXES)}
    return kept | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | dict(given)


class Deaths:
    """Counts the deaths of one instance; decides when it is given up."""

    def __init__(self) -> None:
        self.total = 0
        self._in_a_row = 0

    def died(self) -> bool:
        """Count a death; whether the instance is given up."""
        self.total += 1
        self._in_a_row += 1
        return self._in_a_row >= MAX_DEATHS_IN_A_ROW

    def answered(self) -> None:
        """The instance gave an answer."""
        self._in_a_row = 0
