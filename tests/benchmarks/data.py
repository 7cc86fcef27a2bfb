"""The benchmark's data: files of 10 KB, in a folder or in a bucket, and CSV files; and what a contestant has used."""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import resource
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakes.s3_server import S3Server

SIZE = 10_240


def contents(number: int, size: int = SIZE) -> bytes:
    """The bytes of file `number`: the same in each round and on each machine."""
    return random.Random(number).randbytes(size)


def name(number: int) -> str:
    """The name of file `number`."""
    return f"{number:06}.bin"


def own_figures() -> dict[str, float]:
    """CPU seconds and peak memory of this process so far.

    The peak is VmHWM: `ru_maxrss` starts with the size of the process that forked this one.
    """
    usage = resource.getrusage(resource.RUSAGE_SELF)
    (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_rss_mb": int(peak) / 1024}


def make_local(folder: Path, count: int, size: int = SIZE) -> None:
    """Write the files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        (folder / name(number)).write_bytes(contents(number, size))


def make_csv(folder: Path, files: int, rows: int) -> None:
    """Write CSV files of four numbers a row into `folder`: the same in each run."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        chance = random.Random(number)
        lines = (",".join(f"{chance.uniform(0.1, 8):.1f}" for _ in range(4)) for _ in range(rows))
        (folder / f"{number:03}.csv").write_text("\n".join(lines) + "\n")


async def make_objects(server: S3Server, count: int, size: int = SIZE) -> None:
    """Put the objects below s3://bench-in/items, 32 at a time."""
    from obstore.store import S3Store

    store = S3Store(
        "bench-in",
        endpoint=server.endpoint,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True},
    )
    numbers = iter(range(count))

    async def put() -> None:
        for number in numbers:
            await store.put_async(f"items/{name(number)}", contents(number, size))

    await asyncio.gather(*(put() for _ in range(32)))


def main() -> None:
    """`python tests/benchmarks/data.py FOLDER --count N`: the local files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=SIZE)
    options = parser.parse_args()
    make_local(options.folder, options.count, options.size)


if __name__ == "__main__":
    main()
