"""Requests in flight: a model that takes 50 ms a request and serves so many at once gives no more than a certain rate.

The model server is what bounds the rate, so its own arithmetic is the floor: so many requests at once, by the seconds
that each takes. The hand-written client beside it has 64 requests in flight from the start, which it was told.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import uvloop
from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row

MILLISECONDS = 50
IN_FLIGHT = 64
ITEM_BYTES = 100
ITEMS = {1: (300, 60), 8: (3_000, 1_000), 64: (12_000, 6_000)}
"""By the number of requests that the model serves at once: items, and how many there are at least in a shorter run."""


def client(source: str, target: str, url: str) -> Figures:
    """Plain open + aiohttp on uvloop, 64 in flight."""
    names = sorted(os.listdir(source))
    Path(target).mkdir(parents=True)

    async def post_all() -> None:
        supply = iter(names)

        async def work(session: aiohttp.ClientSession) -> None:
            for name in supply:
                form = aiohttp.FormData()
                form.add_field("file", Path(source, name).read_bytes(), filename=name)
                async with session.post(url, data=form) as response:
                    answer = await response.read()
                    response.raise_for_status()
                Path(target, f"{name}_result.txt").write_bytes(answer)

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
            await asyncio.gather(*(work(session) for _ in range(IN_FLIGHT)))

    start = time.perf_counter()
    uvloop.run(post_all())
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "items": len(names), "rate": len(names) / seconds}


def run(room: Room) -> list[Row]:
    """Model servers of which each serves so many at once."""
    return [row for parallelism in ITEMS for row in run_one(room, parallelism)]


def run_one(room: Room, parallelism: int) -> list[Row]:
    """The rate by that which the server can give; the target is for 8 at once, the others are reported."""
    from data import make_local
    from table import at_least, measured

    items = room.items(*ITEMS[parallelism])
    source = room.folder("in")
    make_local(source, items, ITEM_BYTES)
    with room.model("--service-time", str(MILLISECONDS), "--parallelism", str(parallelism)) as model:

        def floor(_: int) -> Figures:
            with room.output("floor") as output:
                return room.floor(__file__, "client", str(source), output, model.url)

        def thresher(_: int) -> Figures:
            with room.output("thresher") as output:
                return room.thresher(str(source), output, model.url)

        who = {"client with 64 in flight": floor, "thresher": thresher}
        case = f"concurrency {parallelism}"
        played = room.rounds(case, who, {"items": items, "results": items})
    can = parallelism * 1000 / MILLISECONDS
    what = f"rate by what a model of {MILLISECONDS} ms that serves {parallelism} at once can give, {items:,} items"
    target = at_least(0.97) if parallelism == 8 else None
    return [
        measured(what, [one["rate"] / can for one in played["thresher"]], target),
        measured(
            f"the same, client with 64 in flight ({parallelism} at once)",
            [one["rate"] / can for one in played["client with 64 in flight"]],
        ),
    ]


FLOORS = {"client": client}
CASES = [Case("concurrency", "models of 50 ms that serve 1, 8 and 64 requests at once", run)]

if __name__ == "__main__":
    program(CASES, FLOORS)
