"""The reports of a run so far, from the files of its scratch folder on a local disk."""

from __future__ import annotations

from pathlib import Path

from tasks.clients.tables import read_report
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import SHARDS


def owner_of(path: Path) -> str:
    """The run and shard of a file ``.infer-result-<id>/shards/<number>/<name>``."""
    return f"{path.parents[2].name.removeprefix('.infer-result-')}/{SHARDS}/{path.parent.name}"


def report_at(path: Path) -> tuple[list[Outcome], Tally]:
    """The outcomes and the tally of a report or partial report."""
    return read_report(path.read_bytes(), owner_of(path))
