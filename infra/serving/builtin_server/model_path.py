"""What ``model_path`` of a service is: the model file or the package's folder, by the kind of the model."""

import logging
import os
from pathlib import Path
from typing import List, Optional, Tuple

from .families import Family

_NO_MODEL_SUFFIXES = frozenset({".py", ".md", ".txt"})
"""Code and texts, including ``requirements.txt``."""

_NO_MODEL_NAMES = frozenset({"config.json", "version.json"})
"""The second is written next to a registered package."""

_log = logging.getLogger("model_server")


def find_model_path(folder: Path, family: Optional[Family]) -> Path:
    """The path that the service gets.

    With a family that has a model file: the file at the top of ``folder`` with one of its endings, whatever lies beside
    it. With a family that has none: ``folder``. Without a family, or without such a file: the only model file in
    ``folder`` and its sub-folders, or ``folder`` itself if there is not exactly one.
    """
    if family is not None and not family.endings:
        return folder
    for endings in family.endings if family is not None else ():
        found = _files_with(folder, endings)
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            _log.warning("model_path is %s, the first of the model files %s", found[0].name, names)
        if found:
            return found[0]
    return _only_model_file(folder)


def _files_with(folder: Path, endings: Tuple[str, ...]) -> List[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(endings)
        and not path.name.startswith(".")
        and path.name not in _NO_MODEL_NAMES
        and path.is_file()
    )


def _only_model_file(folder: Path) -> Path:
    """Not model files: config.json, ``*.py``, ``*.md``, ``*.txt``, hidden files and everything below hidden folders."""
    only: Optional[Path] = None
    for parent, folders, files in os.walk(str(folder)):
        folders[:] = [name for name in folders if not name.startswith(".") and name != "__pycache__"]
        for name in files:
            path = Path(parent, name)
            if name.startswith(".") or name in _NO_MODEL_NAMES or path.suffix.lower() in _NO_MODEL_SUFFIXES:
                continue
            if only is not None:
                return folder
            only = path
    return only or folder
