"""What must be the same when a run is tried again, so that its second half fits its first."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping

from pydantic import BaseModel, ConfigDict, Field

from tasks.domain.errors import Problem
from tasks.domain.paths import redact
from tasks.domain.run import Run

TEXT_SHOWN = 200
"""A longer text is kept as its beginning and its digest."""
_INPUT_MANIFEST = "input manifest"
WRITTEN_BY_SERVERS = (".pyc", ".log", ".pid")
"""Endings of files that a model server may write into its own package."""


class Fingerprint(BaseModel):
    """Each thing that decides what a run's results are, as a text that people can read.

    Not in it, and free to change: instances, flavor, pool, environment, headers, timeouts, concurrency, rows per
    request, error threshold, log output, priority, description. They decide how fast and where a run is done, or when
    it is given up.
    """

    model_config = ConfigDict(frozen=True)

    fields: dict[str, str] = Field(default_factory=dict)

    def changes(self, now: Fingerprint, task_id: str) -> list[Problem]:
        """The problems of a run that began with this fingerprint and is tried again with ``now``; none if it may go on.

        A field that only one of the two tells, since another version of Thresher wrote the other, is not compared.
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
        """The same with an input manifest, described as below."""
        return Fingerprint(fields={**self.fields, _INPUT_MANIFEST: described})


def fingerprint(run: Run, package_files: str, package_code: str, input_manifest: str) -> Fingerprint:
    """The fingerprint of a validated run and of the files that it reads, each described by the functions below.

    A description is empty if there is no such thing: no package (the server runs already), no input manifest.
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
    }
    return Fingerprint(fields={name: text or "none" for name, text in found.items()})


def described(data: bytes) -> str:
    """Some bytes by their number and digest."""
    return described_by(len(data), hashlib.sha256(data).hexdigest())


def described_by(size: int, digest: str) -> str:
    """As :func:`described`, of bytes that were counted and digested piece by piece."""
    return f"{size:,} bytes, sha256 {digest[:16]}"


class Digest:
    """Bytes that are counted and digested piece by piece while somebody reads them; ``str`` describes them."""

    def __init__(self) -> None:
        self._size = 0
        self._digest = hashlib.sha256()

    def add(self, piece: bytes) -> None:
        """The next bytes."""
        self._size += len(piece)
        self._digest.update(piece)

    @property
    def is_empty(self) -> bool:
        """Whether there was no byte yet."""
        return not self._size

    def __str__(self) -> str:
        return described_by(self._size, self._digest.hexdigest())


def listed(files: Iterable[tuple[str, int]]) -> str:
    """Files by name and size: how many, how large, and the digest of the list.

    What a model server writes into its own package while it runs is passed over: hidden files, byte code, logs.
    """
    kept = sorted((name, size) for name, size in files if not _is_written_by_servers(name))
    digest = hashlib.sha256("".join(f"{name}\0{size}\n" for name, size in kept).encode("utf-8", "surrogateescape"))
    return f"{len(kept):,} files, {described_by(sum(size for _, size in kept), digest.hexdigest())}"


def together(files: Mapping[str, bytes]) -> str:
    """Files by name and content: the names, and the digest of all."""
    if not files:
        return ""
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        digest.update(f"{name}\0{len(data)}\0".encode() + data)
    return f"{', '.join(sorted(files))}, sha256 {digest.hexdigest()[:16]}"


def shortened(text: str) -> str:
    """A text as it is, or its beginning and digest."""
    if len(text) <= TEXT_SHOWN:
        return text
    return f"{text[: TEXT_SHOWN // 2]}... ({described(text.encode('utf-8', 'surrogatepass'))})"


def _is_written_by_servers(name: str) -> bool:
    *folders, last = name.split("/")
    hidden = any(part.startswith(".") or part == "__pycache__" for part in (*folders, last))
    return hidden or last.endswith(WRITTEN_BY_SERVERS)
