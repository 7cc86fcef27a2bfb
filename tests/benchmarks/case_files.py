"""One file, one request: local files, and objects of S3.

The floors are the least that any program must do, item by item, and nothing else: read an item, post its bytes as
multipart/form-data to the model server, write the answer to `<name>_result.txt`. No plan, no retry, no manifest, no
check but the status: what the product takes longer than this is the price of what it does more. The clock runs from
before the listing to after the last result is written.

| floor | what it is |
| --- | --- |
| local | plain open + aiohttp on uvloop, 64 in flight |
| s3 | obstore + aiohttp on uvloop, 64 in flight |
| s3fs | s3fs + requests in 32 threads |
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import uvloop
from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row

IN_FLIGHT = 64
THREADS = 32
BOUNDARY = "----floor7MA4YWxkTrZu0gW"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def multipart(name: str, data: bytes, leaf: str = "file") -> bytes:
    """A body of one file part, built by hand: aiohttp's FormData costs a quarter of the rate."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{leaf}"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return b"".join((head.encode(), data, f"\r\n--{BOUNDARY}--\r\n".encode()))


async def drive(
    names: AsyncIterator[str],
    read: Callable[[str], Awaitable[bytes]],
    write: Callable[[str, bytes], Awaitable[None]],
    url: str,
) -> int:
    """Move every item through read, POST and write, `IN_FLIGHT` at a time; the number of items."""
    count = 0
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

        async def work() -> None:
            nonlocal count
            async for name in names:
                body = multipart(name, await read(name))
                async with session.post(url, data=body, headers=HEADERS) as response:
                    answer = await response.read()
                    response.raise_for_status()
                await write(f"{name}_result.txt", answer)
                count += 1

        await asyncio.gather(*(work() for _ in range(IN_FLIGHT)))
    return count


class Names:
    """A listing that several workers share: each name is handed out once."""

    def __init__(self, names: list[str]) -> None:
        self._names = iter(names)

    def __aiter__(self) -> Names:
        return self

    async def __anext__(self) -> str:
        for name in self._names:
            return name
        raise StopAsyncIteration


def local(source: str, target: str, url: str) -> Figures:
    """Local files by plain open, aiohttp on uvloop."""
    inputs, outputs = Path(source), Path(target)
    outputs.mkdir(parents=True, exist_ok=True)

    async def read(name: str) -> bytes:
        with open(os.path.join(source, name), "rb") as file:
            return file.read()

    async def write(name: str, data: bytes) -> None:
        with open(os.path.join(target, name), "wb") as file:
            file.write(data)

    start = time.perf_counter()
    count = uvloop.run(drive(Names(sorted(os.listdir(inputs))), read, write, url))
    return done(time.perf_counter() - start, count)


def s3(source: str, target: str, url: str) -> Figures:
    """Objects through obstore, aiohttp on uvloop. Addresses are s3://bucket/prefix."""
    import obstore
    from obstore.store import S3Store

    options = {"client_options": {"allow_http": True}}
    inputs = S3Store.from_url(source, **options)  # endpoint, key and secret come from AWS_...
    outputs = S3Store.from_url(target, **options)

    async def read(name: str) -> bytes:
        answer = await obstore.get_async(inputs, name)
        return (await answer.bytes_async()).to_bytes()

    async def write(name: str, data: bytes) -> None:
        await obstore.put_async(outputs, name, data)

    async def everything() -> int:
        listing = await obstore.list(inputs, chunk_size=1000).collect_async()
        return await drive(Names(sorted(meta["path"] for meta in listing)), read, write, url)

    start = time.perf_counter()
    count = uvloop.run(everything())
    return done(time.perf_counter() - start, count)


def s3fs(source: str, target: str, url: str) -> Figures:
    """What most scripts do, s3fs + requests in threads, with one session a thread."""
    # s3fs sends a HEAD before each GET unless max_concurrency is 1; rclone needs the checksums of botocore off.
    os.environ["AWS_RESPONSE_CHECKSUM_VALIDATION"] = os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    import requests
    from s3fs import S3FileSystem

    storage = S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], max_concurrency=1)
    inputs, outputs = source.removeprefix("s3://"), target.removeprefix("s3://")
    own = threading.local()

    def one(path: str) -> None:
        if not hasattr(own, "session"):
            own.session = requests.Session()
        name = path.rpartition("/")[2]
        response = own.session.post(url, data=multipart(name, storage.cat_file(path)), headers=HEADERS)
        response.raise_for_status()
        storage.pipe_file(f"{outputs}/{name}_result.txt", response.content)

    start = time.perf_counter()
    paths = storage.find(inputs)
    with ThreadPoolExecutor(THREADS) as pool:
        count = sum(1 for _ in pool.map(one, paths))
    return done(time.perf_counter() - start, count)


def done(seconds: float, items: int) -> Figures:
    """The figures of a floor."""
    return {"seconds": seconds, "items": items, "rate": items / seconds}


def run_local(room: Room) -> list[Row]:
    """20,000 local files of 10 KB."""
    from data import make_local
    from table import at_least, compared

    items = room.items(20_000)
    source = room.folder("in")
    make_local(source, items)

    def floor(_: int) -> Figures:
        with room.output("floor") as output:
            return room.floor(__file__, "local", str(source), output, room.model_url)

    def thresher(_: int) -> Figures:
        with room.output("thresher") as output:
            return room.thresher(str(source), output, room.model_url)

    played = room.rounds("files", {"floor": floor, "thresher": thresher}, {"items": items, "results": items})
    what = f"inference phase, {items:,} local files of 10 KB, by plain open + aiohttp"
    return [compared(what, played["thresher"], played["floor"], at_least(0.8))]


def run_s3(room: Room) -> list[Row]:
    """5,000 objects of 10 KB, by two floors; and the memory of the flow's process."""
    from data import make_objects
    from table import at_least, at_most, compared, measured

    items = room.items(5_000)
    source = "s3://bench-in/items"
    asyncio.run(make_objects(room.s3, items))

    def floor(name: str) -> Figures:
        with room.output(name, on_s3=True) as output:
            return room.floor(__file__, name, source, output, room.model_url)

    def thresher(_: int) -> Figures:
        with room.output("thresher", on_s3=True) as output:
            return room.thresher(source, output, room.model_url)

    who = {"floor": lambda _: floor("s3"), "thresher": thresher, "s3fs": lambda _: floor("s3fs")}
    played = room.rounds("s3", who, {"items": items, "results": items})
    ours = played["thresher"]
    what = f"inference phase, {items:,} S3 objects of 10 KB, by"
    peaks = [one["peak_rss_mb"] for one in ours]
    return [
        compared(f"{what} obstore + aiohttp", ours, played["floor"], at_least(0.8)),
        compared(f"{what} s3fs + requests in 32 threads", ours, played["s3fs"], at_least(6)),
        measured(f"peak memory of the flow's process, {items:,} S3 objects of 10 KB", peaks, at_most(200), "MB"),
    ]


FLOORS = {"local": local, "s3": s3, "s3fs": s3fs}
CASES = [
    Case("files", "local files, one request each", run_local),
    Case("s3", "objects of S3, one request each; memory", run_s3),
]

if __name__ == "__main__":
    program(CASES, FLOORS)
