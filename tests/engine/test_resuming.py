"""A plan that is there already, and a run that has published, on every kind of storage."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from clients.places import Place
from clients.support import run as run_on_loop
from engine.runs import make_run

from tasks.domain.errors import SpecificationError, StorageError
from tasks.domain.package import PackageConfig
from tasks.domain.run import Plan, Run
from tasks.engine.planning import make_plan
from tasks.engine.published import published_result
from tasks.settings import Settings


class Again:
    """A run over a manifest, of a package, both beside its output on the same storage."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.storage, self.output = place.storage, place.output
        package = str(self.output.root.child("package"))
        run = make_run("/models/x", str(self.output.root), package=package)
        source = str(self.output.root.child("some.manifest"))
        self.run = run.model_copy(update={"service": run.service.model_copy(update={"input_path": source})})

    async def write(self, name: str, data: bytes) -> None:
        await self.output.make()
        await self.output.write(name, data)
