"""Two instances on two cores: a model that takes 20 ms of CPU a request, one request at a time.

The hand-written client shows what the machine gives: the same model servers, with requests sent to each by hand. Where
other things use the cores it gets less than twice the rate, too.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import uvloop
from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row

CPU_MILLISECONDS = 20
IN_FLIGHT = 4
ITEM_BYTES = 100
ITEMS = 3_000
"""So many that it counts little that the second instance is ready later than the first, some 2 s of one core."""


def client(source: str, target: str, *urls: str) -> Figures:
    """Plain open + aiohttp on uvloop, 4 in flight at each server."""
    names = sorted(os.listdir(source))
    Path(target).mkdir(parents=True)

    async def post_all() -> None:
        supply = iter(names)

        async def work(session: aiohttp.ClientSession, url: str) -> None:
            for name in supply:
                form = aiohttp.FormData()
                form.add_field("file", Path(source, name).read_bytes(), filename=name)
                async with session.post(url, data=form) as response:
                    answer = await response.read()
                    response.raise_for_status()
                Path(target, f"{name}_result.txt").write_bytes(answer)

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(work(session, url) for url in itertools.chain(*[urls] * IN_FLIGHT)))

    start = time.perf_counter()
    uvloop.run(post_all())
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "items": len(names), "rate": len(names) / seconds}


def make_package(folder: Path, server: Path) -> Path:
    """A model package whose run.sh starts the model server."""
    request = {"data": {"type": "object", "properties": {"images": {"type": "file"}}}}
    config = {"model_type": "Image", "apis": [{"url": "/", "request": request}]}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.sh").write_text(f"exec {sys.executable} {server} --cpu-time {CPU_MILLISECONDS}\n")
    return folder


def run(room: Room) -> list[Row]:
    """Two instances by one; and the same for the client."""
    from data import make_local
    from room import HERE
    from table import at_least, compared

    items = room.items(ITEMS, least=300)
    source = room.folder("in")
    make_local(source, items, ITEM_BYTES)
    package = make_package(room.folder("package"), HERE.parent / "fakes" / "model_server.py")

    def floor(servers: int) -> Figures:
        with ExitStack() as stack, room.output("floor") as output:
            started = [stack.enter_context(room.model("--cpu-time", str(CPU_MILLISECONDS))) for _ in range(servers)]
            return room.floor(__file__, "client", str(source), output, *(one.url for one in started))

    def thresher(instances: int) -> Figures:
        with room.output("thresher") as output:
            return room.thresher(str(source), output, str(package), instances=instances)

    who = {
        "client, 1 server": lambda _: floor(1),
        "client, 2 servers": lambda _: floor(2),
        "thresher, 1 instance": lambda _: thresher(1),
        "thresher, 2 instances": lambda _: thresher(2),
    }
    played = room.rounds("instances", who, {"items": items, "results": items})
    ours = played["thresher, 2 instances"], played["thresher, 1 instance"]
    by_hand = played["client, 2 servers"], played["client, 1 server"]
    what = f"two instances by one, model of {CPU_MILLISECONDS} ms CPU, {items:,} items"
    return [
        compared(what, *ours, at_least(1.8)),
        compared("the same, by hand: what the machine gives", *by_hand),
    ]


FLOORS = {"client": client}
CASES = [Case("instances", "two instances on two cores", run)]

if __name__ == "__main__":
    program(CASES, FLOORS)
