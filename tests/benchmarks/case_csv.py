"""CSV files: one request per row, and several rows per request.

The floor is what aiohttp can do by itself: request bodies are made before the clock runs, then posted on uvloop with 64
in flight, and the answers of each file joined and written. It reads no CSV, converts no cell and checks no answer.
"""

from __future__ import annotations

import asyncio
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import uvloop
from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row

IN_FLIGHT = 64
FILES = 20
ROWS = 200_000
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
HEADERS = {"Content-Type": "application/json"}


def _array(name: str, fields: dict[str, object]) -> dict[str, object]:
    rows = {"type": "array", "items": {"type": "object", "properties": fields}}
    data = {"type": "object", "properties": {name: rows}}
    return {"Content-type": "application/json", "data": {"type": "object", "properties": {"data": data}}}


ROW_MODEL = {
    "model_type": "Image",
    "model_algorithm": "benchmark",
    "apis": [
        {
            "url": "/iris",
            "method": "post",
            "request": _array("req_data", {name: {"type": "number"} for name in FIELDS}),
            "response": _array("resp_data", {"predictresult": {"type": "string"}, "sum": {"type": "number"}}),
        }
    ],
}
"""config.json of a model whose request is an array of rows."""


def one_row(source: str, target: str, url: str) -> Figures:
    """One request per row, by aiohttp alone."""
    prepared: list[tuple[str, list[bytes]]] = []
    for path in sorted(Path(source).iterdir()):
        with path.open(newline="") as file:
            rows = [dict(zip(FIELDS, map(float, cells), strict=True)) for cells in csv.reader(file)]
        prepared.append((path.name, [json.dumps({"data": {"req_data": [row]}}).encode() for row in rows]))

    async def post_all() -> int:
        answers = [[b""] * len(bodies) for _, bodies in prepared]
        supply = ((file, row, body) for file, (_, bodies) in enumerate(prepared) for row, body in enumerate(bodies))

        async def work(session: aiohttp.ClientSession) -> None:
            for file, row, body in supply:
                async with session.post(url, data=body, headers=HEADERS) as response:
                    answers[file][row] = await response.read()
                    response.raise_for_status()

        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=IN_FLIGHT)) as session:
            await asyncio.gather(*(work(session) for _ in range(IN_FLIGHT)))
        Path(target).mkdir(parents=True)
        for (name, _), lines in zip(prepared, answers, strict=True):
            (Path(target) / f"{name}_result.txt").write_bytes(b"\n".join(lines) + b"\n")
        return sum(map(len, answers))

    start = time.perf_counter()
    rows_done = uvloop.run(post_all())
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "items": len(prepared), "rows": rows_done, "rate": rows_done / seconds}


class Reference:
    """The result files that were seen first; all others must be the same, line by line."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def check(self, files: Iterator[Path]) -> int:
        """The number of lines. Raises ValueError naming the first line that is different."""
        found = {path.name: path.read_bytes() for path in files}
        self._files = self._files or found
        if found.keys() != self._files.keys():
            raise ValueError(f"other result files: {sorted(found.keys() ^ self._files.keys())[:3]}")
        for name, data in found.items():
            if data != self._files[name]:
                pairs = zip(data.splitlines(), self._files[name].splitlines(), strict=False)
                line = next((at for at, (one, other) in enumerate(pairs, 1) if one != other), 0)
                raise ValueError(f"{name} is different from line {line} on")
        return sum(data.count(b"\n") for data in found.values())


def run(room: Room) -> list[Row]:
    """The floor, one row per request, and as many as Thresher finds good; each result file is compared."""
    from data import make_csv
    from table import at_least, compared

    rows = room.items(ROWS // FILES)
    source = room.folder("in")
    make_csv(source, FILES, rows)
    reference = Reference()

    def floor(_: int) -> Figures:
        with room.output("floor") as output:
            figures = room.floor(__file__, "one-row", str(source), output, f"{room.model_url}/iris")
            return figures | {"lines": reference.check(room.result_files(output))}

    def thresher(rows_per_request: int | str) -> Figures:
        with room.output("thresher") as output:
            figures = room.thresher(
                str(source), output, room.model_url, model_config=ROW_MODEL, rows_per_request=rows_per_request
            )
            return figures | {"lines": reference.check(room.result_files(output))}

    who = {"floor": floor, "thresher, one row": lambda _: thresher(1), "thresher, auto": lambda _: thresher("auto")}
    total = rows * FILES
    played = room.rounds("csv", who, {"items": FILES, "rows": total, "results": FILES, "lines": total})
    one, auto = played["thresher, one row"], played["thresher, auto"]
    return [
        compared(f"CSV, one request per row, {total:,} rows, by aiohttp alone", one, played["floor"], at_least(0.8)),
        compared(
            f"CSV, `rows_per_request: auto` by one row, {total:,} rows, same result files", auto, one, at_least(10)
        ),
    ]


FLOORS = {"one-row": one_row}
CASES = [Case("csv", "one request per row, and several rows per request", run)]

if __name__ == "__main__":
    program(CASES, FLOORS)
