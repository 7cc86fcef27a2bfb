"""The hand-written floors: the least that any program must do, item by item, and nothing else.

Each floor reads an item, posts its bytes as multipart/form-data to the model server and writes the answer to
`<name>_result.txt`. No plan, no retry, no manifest, no check but the status: what the product takes longer than this
is the price of what it does more. The clock runs from before the listing to after the last result is written.

    python tests/benchmarks/floors.py local  INPUT OUTPUT URL         plain open + aiohttp on uvloop, 64 in flight
    python tests/benchmarks/floors.py s3     s3://B/IN s3://B/OUT URL obstore + aiohttp on uvloop, 64 in flight
    python tests/benchmarks/floors.py s3fs   s3://B/IN s3://B/OUT URL s3fs + requests in 32 threads

prints one JSON object: seconds, items, rate, cpu_seconds and peak_rss_mb of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import aiohttp
import uvloop
from data import own_figures

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


def run_local(source: str, target: str, url: str) -> tuple[float, int]:
    """Floor (a): local files by plain open, aiohttp on uvloop."""
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
    return time.perf_counter() - start, count


def run_s3(source: str, target: str, url: str) -> tuple[float, int]:
    """Floor (b): objects through obstore, aiohttp on uvloop. Addresses are s3://bucket/prefix."""
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
    return time.perf_counter() - start, count


def run_s3fs(source: str, target: str, url: str) -> tuple[float, int]:
    """Floor (c): what most scripts do, s3fs + requests in threads, with one session a thread."""
    # s3fs sends a HEAD before each GET unless max_concurrency is 1; rclone needs the checksums of botocore off.
    os.environ["AWS_RESPONSE_CHECKSUM_VALIDATION"] = os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = "when_required"
    import requests
    import s3fs

    storage = s3fs.S3FileSystem(endpoint_url=os.environ["AWS_ENDPOINT_URL"], max_concurrency=1)
    inputs, outputs = source.removeprefix("s3://"), target.removeprefix("s3://")
    local = threading.local()

    def one(path: str) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        name = path.rpartition("/")[2]
        response = local.session.post(url, data=multipart(name, storage.cat_file(path)), headers=HEADERS)
        response.raise_for_status()
        storage.pipe_file(f"{outputs}/{name}_result.txt", response.content)

    start = time.perf_counter()
    paths = storage.find(inputs)
    with ThreadPoolExecutor(THREADS) as pool:
        count = sum(1 for _ in pool.map(one, paths))
    return time.perf_counter() - start, count


FLOORS = {"local": run_local, "s3": run_s3, "s3fs": run_s3fs}


def main() -> None:
    """Run one floor in this process and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("floor", choices=sorted(FLOORS))
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("url")
    options = parser.parse_args()
    seconds, items = FLOORS[options.floor](options.input, options.output, options.url)
    figures = {
        "seconds": seconds,
        "items": items,
        "rate": items / seconds,
    }
    print(json.dumps(figures | own_figures()))


if __name__ == "__main__":
    main()
