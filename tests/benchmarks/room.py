"""Where a benchmark happens: a folder in memory, the servers that contestants talk to, rounds that are interleaved.

Every contestant works in a fresh process, so that CPU and memory are its own. What it says that it did is checked, and
so are the result files: whoever lost an item has no figures.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[1:1] = [str(HERE.parent), str(ROOT)]

from case import Figures  # noqa: E402
from fakes.model_server import FakeModelServer  # noqa: E402
from fakes.prefect_servers import PrefectServer, sqlite_server  # noqa: E402
from fakes.processes import die_with_parent  # noqa: E402
from fakes.s3_server import S3Server  # noqa: E402

SHARED_MEMORY = Path("/dev/shm")  # a disk that others use makes rounds incomparable
LONGEST_SECONDS = 3_600.0
SMALL_FILE_BYTES = 6 << 10
"""What a small file costs in memory: a page, and what the kernel keeps of it."""
_OUTSIDE = ("AWS_", "OBS_", "THRESHER_", "PREFECT_")

Contestants = Mapping[str, Callable[[int], Figures]]
"""Who plays, by name: each plays the round of that number and returns its figures."""


class LostItems(RuntimeError):
    """A contestant did not do all that it was given."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended; times in seconds since 1970. Its CPU is with that of its children."""

    stdout: str
    started_at: float
    ended_at: float
    cpu_seconds: float

    @property
    def seconds(self) -> float:
        """From its start to its end."""
        return self.ended_at - self.started_at


class Room:
    """The room, as a context manager. Servers are started when they are first asked for, and end with it."""

    def __init__(self, *, share: float = 1.0, rounds: int = 3, scratch: Path | None = None) -> None:
        self.share = share
        self.round_count = rounds
        self.played: dict[str, dict[str, list[Figures]]] = {}
        """Every figure of every round, by case and contestant."""
        self._memory = scratch or (SHARED_MEMORY if SHARED_MEMORY.is_dir() else None)
        self._stack = contextlib.ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> Self:
        self.scratch = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=self._memory)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    # -- what there is ------------------------------------------------------------------------------------------------

    @cached_property
    def s3(self) -> S3Server:
        """A real S3 server, whose objects are in memory, with the buckets bench-in and bench-out."""
        server = self._stack.enter_context(S3Server(self.scratch / "s3", dir_cache="5m"))
        for bucket in ("bench-in", "bench-out"):
            server.make_bucket(bucket)
        return server

    @cached_property
    def prefect(self) -> PrefectServer:
        """A real Prefect server in a process of its own: a flow's CPU and memory are then those of the flow."""
        return self._stack.enter_context(sqlite_server(self.scratch / "prefect"))

    @cached_property
    def model_url(self) -> str:
        """A model server that answers at once."""
        return self._stack.enter_context(self.model()).url

    def model(self, *options: str) -> FakeModelServer:
        """A model server with options of its command line, to be used as a context manager."""
        return FakeModelServer(*options)

    def items(self, full: int, least: int = 20) -> int:
        """So many items, or the share of them that this run takes."""
        return max(least, round(full * self.share))

    def folder(self, name: str, files: int = 0) -> Path:
        """An empty folder that nobody else uses, in memory unless so many small files do not fit there.

        It is removed with the room.
        """
        numbered = f"{name}-{next(self._numbers)}"
        if files and not _fit(files, self.scratch):
            print(f"{files:,} files do not fit into {self.scratch}: they are on the disk", file=sys.stderr)
            disk = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-disk-"))
            made = Path(disk) / numbered
        else:
            made = self.scratch / numbered
        made.mkdir(parents=True)
        return made

    # -- rounds -------------------------------------------------------------------------------------------------------

    def rounds(
        self, case: str, contestants: Contestants, whole: Mapping[str, Any], *, rounds: int | None = None
    ) -> dict[str, list[Figures]]:
        """All rounds of a case, interleaved; the order turns, so that nobody always goes first.

        `whole` are figures that everybody must have, such as the number of items: raises LostItems otherwise.
        """
        played: dict[str, list[Figures]] = {name: [] for name in contestants}
        self.played[case] = played
        names = list(contestants)
        for number in range(rounds or self.round_count):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                figures = contestants[name](number)
                check_whole(f"{case}: {name}", figures, whole)
                played[name].append(figures)
                print(f"{case} round {number + 1} {name}: {figures['rate']:,.2f}/s", file=sys.stderr, flush=True)
        return played

    # -- contestants --------------------------------------------------------------------------------------------------

    def client(self, file: str, name: str, *arguments: str) -> Figures:
        """The figures of a function of a file of cases that stands in its FLOORS."""
        return self.run([sys.executable, str(Path(file).resolve()), "floor", name, *arguments])

    def floor(self, file: str, name: str, source: str, output: str, *more: str) -> Figures:
        """The figures of a hand-written floor, with the number of its result files."""
        return self.client(file, name, source, output, *more) | {"results": self.results(output)}

    def thresher(self, source: str, output: str, model: str, **fields: Any) -> Figures:
        """The figures of one run of the product on the running Prefect server: those of the inference phase.

        `model` is the address of a model server or a package; further fields of the specification may follow.
        """
        service = {"name": "benchmark", "input_path": source, "output_path": output, "model": model, **fields}
        file = self.folder("service") / "service.json"
        file.write_text(json.dumps(service))
        figures = self.run([sys.executable, str(HERE / "product.py"), str(file)], self.prefect.environment)
        return figures | {"results": self.results(output)}

    def run(self, command: list[str], environment: Mapping[str, str] | None = None) -> Figures:
        """Run a contestant in a fresh process; the JSON object that it prints last."""
        return dict(json.loads(self.process(command, environment or {}).stdout.strip().splitlines()[-1]))

    def process(self, command: list[str], environment: Mapping[str, str]) -> Ended:
        """Run a process to its end. Raises RuntimeError if its code is not 0.

        Of this process's variables it gets those that are nobody's settings, those of the S3 server once there is one,
        and `environment`.
        """
        own = {name: value for name, value in os.environ.items() if not name.startswith(_OUTSIDE)}
        own |= {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "THRESHER_CACHE": str(self.scratch / "cache")}
        if "s3" in self.__dict__:
            own |= self.s3.environment() | {"AWS_EC2_METADATA_DISABLED": "true"}
        before, started_at = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
        done = subprocess.run(
            command, env=own | dict(environment), cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS,
            check=False, preexec_fn=die_with_parent,
        )  # fmt: skip
        ended_at, after = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise RuntimeError(f"{command} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Ended(done.stdout, started_at, ended_at, cpu)

    # -- results ------------------------------------------------------------------------------------------------------

    def place(self, address: str) -> Path:
        """Where a local path, or an object of the S3 server, really is."""
        return self.s3.folder / address.removeprefix("s3://") if address.startswith("s3://") else Path(address)

    def result_files(self, output: str) -> Iterator[Path]:
        """Every result file below an output path, in no order."""
        waiting = [str(self.place(output))]
        while waiting:
            with os.scandir(waiting.pop()) as found:
                for entry in found:
                    if entry.is_dir():
                        waiting.append(entry.path)
                    elif entry.name.endswith("_result.txt"):
                        yield Path(entry.path)

    def results(self, output: str) -> int:
        """How many result files there are."""
        return sum(1 for _ in self.result_files(output))

    @contextlib.contextmanager
    def output(self, name: str, *, on_s3: bool = False, files: int = 0) -> Iterator[str]:
        """An address to write results to; what is there is removed afterwards."""
        address = f"s3://bench-out/{name}-{next(self._numbers)}" if on_s3 else str(self.folder(name, files) / "out")
        try:
            yield address
        finally:
            shutil.rmtree(self.place(address), ignore_errors=True)


def check_whole(who: str, figures: Figures, whole: Mapping[str, Any]) -> None:
    """Raise LostItems unless the figures are what everybody must have."""
    for name, expected in whole.items():
        if figures.get(name) != expected:
            raise LostItems(f"{who} has {figures.get(name)} {name}, not {expected}")


def _fit(files: int, folder: Path) -> bool:
    """Whether so many small files fit into a folder in memory, with room to spare."""
    found = os.statvfs(folder)
    memory = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    available = 1024 * int(memory["MemAvailable"].split()[0])
    needed = files * SMALL_FILE_BYTES
    return files * 1.5 < found.f_favail and needed * 2 < min(available, found.f_bavail * found.f_frsize)
