"""What a run costs however small it is: whole processes, from their start to their end, for one item.

The model server runs already, at an address; it says when the first request came and when the last answer went, so that
the time of a process falls into three parts. The floor is a Python program that does the same item with aiohttp.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
import uvloop
from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row


def one_item(source: str, target: str, url: str) -> Figures:
    """Every item, one after the other."""

    async def post() -> int:
        names = os.listdir(source)
        Path(target).mkdir(parents=True)
        async with aiohttp.ClientSession() as session:
            for name in names:
                form = aiohttp.FormData()
                form.add_field("file", Path(source, name).read_bytes(), filename=name)
                async with session.post(url, data=form) as response:
                    answer = await response.read()
                    response.raise_for_status()
                Path(target, f"{name}_result.txt").write_bytes(answer)
        return len(names)

    return {"items": uvloop.run(post())}


def run(room: Room) -> list[Row]:
    """`thresher run` of one item, on a running Prefect server and without one, by the floor."""
    from data import make_local
    from product import FILE_MODEL
    from table import at_most, measured

    source = room.folder("in")
    make_local(source, 1)
    thresher = str(Path(sys.executable).with_name("thresher"))

    def process(who: str, environment: dict[str, str]) -> Figures:
        with room.output(who) as output, room.model() as model:
            if who == "floor":
                command = [sys.executable, __file__, "floor", "one-item", str(source), output, model.url]
            else:
                fields = {
                    "name": "benchmark", "input_path": str(source), "output_path": output, "model": model.url,
                    "model_config": FILE_MODEL,
                }  # fmt: skip
                service = room.folder("service") / "service.json"  # JSON is YAML
                service.write_text(json.dumps(fields))
                command = [thresher, "run", str(service), "--json"]
            ended = room.process(command, environment)
            told = json.loads(ended.stdout)
            stats = model.stats()
            return {
                "items": told["items"],
                "results": room.results(output),
                "seconds": ended.seconds,
                "rate": 1 / ended.seconds,
                "cpu_seconds": ended.cpu_seconds,
                "to_first_request": stats["first_request_at"] - ended.started_at,
                "after_last_answer": ended.ended_at - stats["last_answer_at"],
            }

    on_server, without = room.prefect.environment, {"PREFECT_HOME": str(room.folder("home"))}
    who = {
        "floor": lambda _: process("floor", {}),
        "on a server": lambda _: process("thresher", on_server),
        "without a server": lambda _: process("thresher", without),
    }
    for once in who.values():  # a database is made, and files are read from the disk, before the rounds
        once(0)
    played = room.rounds("fixed cost", who, {"items": 1, "results": 1}, rounds=max(3, room.round_count))
    floor = played["floor"]
    rows = []
    for name, target in (("on a server", at_most(1.5)), ("without a server", None)):
        ours = played[name]
        whole = [one["seconds"] - base["seconds"] for one, base in zip(ours, floor, strict=True)]
        rows += [
            measured(f"`thresher run` of 1 item {name}, over the floor", whole, target, "s"),
            measured(f"to the first request, {name}", _column(ours, "to_first_request"), unit="s"),
            measured(f"from the last answer to the exit, {name}", _column(ours, "after_last_answer"), unit="s"),
        ]
    return [*rows, measured("the floor's whole process", _column(floor, "seconds"), unit="s")]


def _column(rounds: Sequence[Figures], name: str) -> list[float]:
    return [one[name] for one in rounds]


FLOORS = {"one-item": one_item}
CASES = [Case("fixed-cost", "whole processes for one item", run)]

if __name__ == "__main__":
    program(CASES, FLOORS)
