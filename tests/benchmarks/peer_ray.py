"""Ray Data's side of the benchmark, in the environment of the peers: one job on a cluster that is started for it.

    .venv-peers/bin/python tests/benchmarks/peer_ray.py INPUT OUTPUT URL SCRATCH

reads files (a folder, or s3://bucket/prefix), posts each as multipart/form-data and writes names and answers as
Parquet, as Ray's documentation has it: `read_binary_files`, `map_batches`, `write_parquet`. It prints one JSON object;
`seconds` is the job, from the listing to the last file written, `start_seconds` the start of the cluster before it.

The settings are the best found on two cores; what else was tried is said where each is set.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from typing import Any

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
# What pyarrow would add to a request by itself, a plain S3 server does not know.
os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] = os.environ["AWS_RESPONSE_CHECKSUM_VALIDATION"] = "when_required"

import ray
from pyarrow.fs import S3FileSystem

IN_FLIGHT = 64
BATCH = 1_000
"""More than a block has, so that a block is one batch; no limit is the same."""
BLOCKS = 20
"""Of local files. In the quieter moments of a shared machine Ray's own choice did 930 files a second, 8 blocks 970, 20
blocks 1,010 and 1,210; 4 tasks at once on two cores 830. On S3 Ray chooses: it did 230 so, 250 with 8 tasks at once."""
BOUNDARY = "----floor7MA4YWxkTrZu0gW"
HEADERS = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def multipart(name: str, data: bytes) -> bytes:
    """A body of one file part, built by hand as that of the hand-written floors: it is the fastest."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return b"".join((head.encode(), data, f"\r\n--{BOUNDARY}--\r\n".encode()))


def post(batch: dict[str, Any], url: str) -> dict[str, Any]:
    """The answers to the files of a batch, all of them in flight as far as the connections go.

    A function, so that Ray does reading, sending and writing of a block in one task, without the object store between
    them. An async class in a pool of actors, whose session lives on, did 560 files a second where this did 930: each
    block then goes through the object store twice. Ray's own HTTP stage opens a session per batch and waits for each
    answer before the next request.
    """
    import aiohttp
    import uvloop

    async def everything() -> list[str]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:

            async def one(path: str, data: bytes) -> str:
                body = multipart(path.rpartition("/")[2], data)
                async with session.post(url, data=body, headers=HEADERS) as response:
                    response.raise_for_status()
                    return (await response.read()).decode()

            return await asyncio.gather(*map(one, batch["path"], batch["bytes"]))

    return {"path": batch["path"], "answer": uvloop.run(everything())}


def storage(address: str) -> S3FileSystem | None:
    """The client for an address of S3, from the usual variables; None for local files."""
    if not address.startswith("s3://"):
        return None
    return S3FileSystem(
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        region=os.environ["AWS_REGION"],
        endpoint_override=os.environ["AWS_ENDPOINT_URL"],
    )


def main() -> None:
    """Run the job and print its figures."""
    source, target, url, scratch = sys.argv[1:]
    start = time.perf_counter()
    ray.init(include_dashboard=False, _temp_dir=scratch, log_to_driver=False, logging_level="WARNING")
    begun = time.perf_counter()
    ray.data.DataContext.get_current().enable_progress_bars = False
    files = ray.data.read_binary_files(
        source,
        include_paths=True,
        filesystem=storage(source),
        override_num_blocks=None if source.startswith("s3://") else BLOCKS,
    )
    answers = files.map_batches(post, fn_kwargs={"url": url}, batch_size=BATCH)
    # The folder is not made beforehand on S3: a plain S3 server takes its placeholder for a file.
    answers.write_parquet(target, filesystem=storage(target), try_create_dir=not target.startswith("s3://"))
    ended = time.perf_counter()
    ray.shutdown()
    print(json.dumps({"seconds": ended - begun, "start_seconds": begun - start}))


if __name__ == "__main__":
    main()
