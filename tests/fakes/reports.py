"""What a run has reported so far, by the files of its scratch folder on a local disk."""

from __future__ import annotations

from pathlib import Path

from tasks.clients.tables import read_report
from tasks.domain.result import Outcome, Tally
from tasks.domain.run import SHARDS


def owner_of(path: Path) -> str:
    """Of what run and shard a file ``.infer-result-<id>/shards/<number>/<name>`` is."""
    return f"{path.parents[2].name.removeprefix('.infer-result-')}/{SHARDS}/{path.parent.name}"


def report_at(path: Path) -> tuple[list[Outcome], Tally]:
    """The outcomes and the tally of a report, or of a part of one."""
    return read_report(path.read_bytes(), owner_of(path))
