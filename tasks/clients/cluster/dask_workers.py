"""Dask workers as processes of this machine, each under a warden; one that ends by itself is replaced."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tasks.clients.processes.keepers import Keepers
from tasks.clients.processes.lifeline import GuardedProcess
from tasks.clients.processes.output_drain import last_bytes
from tasks.clients.processes.scratch_folders import scratch_folder

HOST = "127.0.0.1"
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
_DETAIL_CHARACTERS = 2_000


class LocalWorkers:
    """``count`` workers of a scheduler, each with ``threads`` threads and exactly ``environment``."""

    def __init__(self, scheduler: str, count: int, threads: int, environment: Mapping[str, str]) -> None:
        self._arguments = (
            *("dask_worker", scheduler, "--no-nanny", "--no-dashboard"),
            *("--nthreads", str(threads), "--nworkers", "1", "--memory-limit", "0", "--host", HOST),
        )
        self._count = count
        self._environment = dict(environment)
        self._keepers: Keepers | None = None
        self.detail = ""
        """The last output of the worker that most recently ended by itself."""

    def start(self) -> None:
        """Start the workers; they join the cluster one by one."""
        lives = [partial(self._run, number) for number in range(self._count)]
        self._keepers = Keepers(lives, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)

    async def _run(self, number: int) -> None:
        """One worker from start to end. All temporary files of it and its model server are in one folder."""
        scratch = scratch_folder()
        log = scratch / f"worker-{number}.log"
        try:
            process = await GuardedProcess.start_own(
                "tasks.clients.cluster.dask_process", self._arguments, folder=Path.cwd(),
                environment=self._environment | {"TMPDIR": str(scratch)}, log=log, scratch=scratch,
            )  # fmt: skip
            try:
                await process.command_ended()
                self.detail = last_bytes(log, 4 * _DETAIL_CHARACTERS).decode(errors="replace")[-_DETAIL_CHARACTERS:]
            finally:
                await process.stop()
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    async def close(self) -> None:
        """End all workers."""
        if self._keepers is not None:
            await self._keepers.close()
