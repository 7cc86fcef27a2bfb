"""The settings and files that must not change between tries of a run, so that its parts fit together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, Field

from tasks.domain.errors import Problem
from tasks.domain.paths import redact
from tasks.domain.run import Run

TEXT_SHOWN = 200
"""Longer texts are kept as their beginning and digest."""
_INPUT_MANIFEST = "input manifest"
WRITTEN_BY_SERVERS = (".pyc", ".log", ".pid")
"""Endings of files that a model server may write into its own package."""


class Fingerprint(BaseModel, frozen=True):
    """Everything that determines a run's results, as readable texts.

    Not included, and free to change: instances, flavor, pool, environment, headers, timeouts, concurrency, rows per
    request, error threshold, log output, priority, description. They determine only how fast and where a run is
    processed, or when it is given up.
    """

    fields: dict[str, str] = Field(default_factory=dict)

    def changes(self, now: Fingerprint, task_id: str) -> list[Problem]:
        """The problems of a run that began with this fingerprint and is resumed with ``now``; empty if it may go on.

        A field that only one of the two has, because another version of Thresher wrote the other, is not compared.
        """
        changed = [
            Problem(name, now.fields[name], f"was {was!r} when run {task_id} began")
            for name, was in self.fields.items()
            if name in now.fields and now.fields[name] != was
        ]
        if not changed:
            return []
        expected = "cannot be resumed: what follows has changed. Put it back and resume again, or start a new run"
        return [Problem(f"run {task_id}", None, expected), *changed]

    def with_manifest(self, described: str) -> Fingerprint:
        """A copy with an input manifest, described as below."""
        return Fingerprint(fields={**self.fields, _INPUT_MANIFEST: described})


def fingerprint(run: Run, package_files: str, package_code: str, input_manifest: str) -> Fingerprint:
    """The fingerprint of a validated run and of the files that it reads, each described by the functions below.

    A description is empty if the run has no package (the server already runs) or no input manifest.
    """
    service = run.service
    in_store = run.model_version is not None
    found = {
        "model": f"{service.model_source}/{service.model}" if in_store else run.package or redact(service.model),
        "model_version": run.model_version or "",
        "failed_of": redact(f"{service.failed_of or ''}{', merged' if service.merge else ''}"),
        "config.json": described(run.config.model_dump_json(by_alias=True).encode()),
        "package files": package_files,
        "package code": package_code,
        "request_path": run.request_path,
        "mapping": "" if run.rule is None else shortened(json.dumps(run.rule, ensure_ascii=False)),
        "csv_header": service.csv_header,
        "empty_cells": service.empty_cells,
        "input_path": service.input_path,
        _INPUT_MANIFEST: input_manifest,
        "output_path": run.output,
        "result_folder": service.result_folder,
        "loosen": "yes" if service.loosen else "",
    }
    return Fingerprint(fields={name: text or "none" for name, text in found.items()})


def described(data: bytes) -> str:
    """A description of bytes by their number and digest."""
    return described_by(len(data), hashlib.sha256(data).hexdigest())


def described_by(size: int, digest: str) -> str:
    """As :func:`described`, for bytes that were counted and digested piece by piece."""
    return f"{size:,} bytes, sha256 {digest[:16]}"


class Digest:
    """Counts and digests bytes piece by piece as they are read; ``str`` describes them."""

    def __init__(self) -> None:
        self._size = 0
        self._digest = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """Add the next bytes."""
        self._size += len(piece)
        self._digest.update(piece)

    @property
    def is_empty(self) -> bool:
        """Whether no bytes were added yet."""
        return not self._size

    def __str__(self) -> str:
        return described_by(self._size, self._digest.hexdigest())


def listed(files: Iterable[tuple[str, int]]) -> str:
    """A description of files by name and size: their number, total size, and the digest of the list.

    Files that a model server writes into its own package while it runs are ignored: hidden files, bytecode, logs.
    """
    kept = sorted((name, size) for name, size in files if not _is_written_by_servers(name))
    digest = hashlib.sha256("".join(f"{name}\0{size}\n" for name, size in kept).encode("utf-8", "surrogateescape"))
    return f"{len(kept):,} files, {described_by(sum(size for _, size in kept), digest.hexdigest())}"


def together(files: Mapping[str, bytes]) -> str:
    """A description of files by name and content: the names, and the digest of all."""
    if not files:
        return ""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return f"{', '.join(sorted(files))}, sha256 {digest.hexdigest()[:16]}"


def shortened(text: str) -> str:
    """A short text unchanged, a longer one as its beginning and digest."""
    if len(text) <= TEXT_SHOWN:
        return text
    return f"{text[: TEXT_SHOWN // 2]}... ({described(text.encode('utf-8', 'surrogatepass'))})"


def _is_written_by_servers(name: str) -> bool:
    *folders, last = name.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in (*folders, last))
    return hidden or last.endswith(WRITTEN_BY_SERVERS)
