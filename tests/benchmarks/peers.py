"""Thresher beside its peers, on the same model server and the same data: `mlserver infer` and Ray Data.

    make bench-peers        or: python tests/benchmarks/peers.py [options of bench.py]

The peers live in an environment of their own, `.venv-peers`, that is made from peers.lock. Each is used as its own
documentation says, with the best settings found (said where they are set), and every answer is looked at: a peer, or
Thresher, that lost an item has no figures. Everybody is measured with all processes that it starts. The ratios are of

- the job: of a peer from its first look at the input to its last result, without its start; of Thresher planning,
  inference and publishing together, although only it checks the sum and writes a manifest and a file per item;
- the whole: from the start of the command to its end, with all imports, where Prefect's server and Ray's cluster run
  already: Ray's start of its cluster is taken off.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from case import Case, Figures, program

if TYPE_CHECKING:
    from room import Room
    from table import Row

HERE = Path(__file__).resolve().parent
PEERS = HERE.parents[1] / ".venv-peers" / "bin"
FIELDS = ("sepal_length", "sepal_width", "petal_length", "petal_width")
JOB = ("plan", "infer", "publish")
TIME_TAKEN = re.compile(r"Time taken: ([\d.]+) seconds")


# -- contestants ------------------------------------------------------------------------------------------------------


def measured_tree(room: Room, command: list[str], environment: dict[str, str] | None = None) -> tuple[Figures, str]:
    """The figures of a command with all that it starts, and what it said. Raises RuntimeError if it fails."""
    log = room.folder("log") / "output.log"
    figures = room.run([sys.executable, str(HERE / "process_tree.py"), str(log), *command], environment or {})
    return figures, log.read_text(errors="replace")


def last_object(text: str) -> Figures:
    """The JSON object in the last line that holds one."""
    return dict(json.loads([line for line in text.splitlines() if line.startswith("{")][-1]))


def mlserver(room: Room, source: Path, items: int, *options: str) -> Figures:
    """`mlserver infer`: requests from a file of JSON lines, answers to another. `seconds` is what it says itself.

    Tried for `--workers`: 1, 5, 10, 32, 64; 64 was best by a little. `--binary-data` sends tensors in binary, which was
    faster by a quarter.
    """
    with room.output("mlserver") as output:
        answers = Path(output)
        command = [
            *(
                str(PEERS / "mlserver"),
                "infer",
                "--url",
                room.model_url.removeprefix("http://"),
                "--model-name",
                "bench",
            ),
            *("--input-data-path", str(source), "--output-data-path", str(answers), "--workers", "64", *options),
        ]
        figures, said = measured_tree(room, command)
        taken = TIME_TAKEN.search(said)
        if not taken:
            raise RuntimeError(f"mlserver did not say how long it took:\n{said[-2000:]}")
        answered = set(answered_by_mlserver(answers.read_text().splitlines()))
        answers.unlink()
    return figures | job(float(taken[1]), len(answered & set(range(items))))


def answered_by_mlserver(lines: Iterable[str]) -> Iterator[int]:
    """The numbers of the requests that have one answer of the model; it writes those that failed among the others."""
    for line in lines:
        told = json.loads(line)
        if "error" not in told and len(told["outputs"][0]["data"]) == 1:
            yield told["parameters"]["batch_index"]


def ray(room: Room, source: str, on_s3: bool) -> Figures:
    """Ray Data, as peer_ray.py has it."""
    scratch = room.folder("ray")
    # Everything that Ray leaves is in the scratch folder: sessions by _temp_dir, the rest by this variable.
    environment = {"RAY_TMPDIR": str(scratch)}
    with room.output("ray", on_s3=on_s3) as output:
        command = [str(PEERS / "python"), str(HERE / "peer_ray.py"), source, output, f"{room.model_url}/", str(scratch)]
        figures, said = measured_tree(room, command, environment)
        told = last_object(said)
        answered = set(answered_by_ray(room.place(output)))
    return figures | job(told["seconds"], len(answered)) | {"start_seconds": told["start_seconds"]}


def answered_by_ray(folder: Path) -> Iterator[str]:
    """The names of the files that have an answer of the model."""
    from pyarrow.parquet import ParquetFile

    for file in folder.glob("*.parquet"):
        for row in ParquetFile(file).read().to_pylist():
            if json.loads(row["answer"])["ok"]:
                yield row["path"].rpartition("/")[2]


def thresher(room: Room, source: str, results: int, on_s3: bool = False, **fields: Any) -> Figures:
    """Thresher, on the running Prefect server. `seconds` is its job, `infer_seconds` the inference."""
    with room.output("thresher", on_s3=on_s3) as output:
        service = {"name": "benchmark", "input_path": source, "output_path": output, "model": room.model_url, **fields}
        file = room.folder("service") / "service.json"
        file.write_text(json.dumps(service))
        command = [sys.executable, str(HERE / "product.py"), str(file)]
        figures, said = measured_tree(room, command, room.prefect.environment)
        told = last_object(said)
        if room.results(output) != results:
            raise RuntimeError(f"Thresher has written {room.results(output)} result files, not {results}")
    done = job(sum(told["phases"][phase] for phase in JOB), told["rows"] or told["items"])
    return figures | done | {"infer_seconds": told["seconds"], "phases": told["phases"]}


def job(seconds: float, items: int) -> Figures:
    """The figures of a job."""
    return {"seconds": seconds, "items": items, "rate": items / seconds}


# -- data -------------------------------------------------------------------------------------------------------------


def rows_of_numbers(count: int) -> Iterator[list[float]]:
    """Rows of four numbers, the same in each run."""
    draw = random.Random(count)
    for _ in range(count):
        yield [round(draw.uniform(0, 8), 1) for _ in FIELDS]


def write_lines(path: Path, requests: Iterable[dict[str, Any]]) -> Path:
    """A file of requests for `mlserver infer`: one input each."""
    with path.open("w") as file:
        for request in requests:
            file.write(json.dumps({"inputs": [request]}) + "\n")
    return path


def row_request(row: list[float]) -> dict[str, Any]:
    """One row of numbers as a tensor."""
    return {"name": "predict", "shape": [1, len(row)], "datatype": "FP32", "data": row}


def file_request(path: Path) -> dict[str, Any]:
    """A file's bytes as the protocol has them in JSON: Base64. As 10,240 numbers they took five times as long."""
    data = base64.b64encode(path.read_bytes()).decode()
    return {"name": "file", "shape": [1], "datatype": "BYTES", "parameters": {"content_type": "base64"}, "data": [data]}


def model_of_rows(url: str, request: dict[str, Any], response: dict[str, Any]) -> dict[str, Any]:
    """config.json of a model that takes JSON."""
    api = {
        "url": url,
        "request": {"Content-type": "application/json", "data": request},
        "response": {"Content-type": "application/json", "data": response},
    }
    return {"model_type": "Image", "model_algorithm": "benchmark", "apis": [api]}


def in_array(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """The schema of {"data": {name: [{...}, ...]}}."""
    array = {"type": "array", "items": {"type": "object", "properties": properties}}
    return {"type": "object", "properties": {"data": {"type": "object", "properties": {name: array}}}}


NUMBERS = {name: {"type": "number"} for name in FIELDS}
ONE_ROW = model_of_rows("/", {"type": "object", "properties": NUMBERS}, {"type": "object"})
MANY_ROWS = model_of_rows(
    "/iris",
    in_array("req_data", NUMBERS),
    in_array("resp_data", {"predictresult": {"type": "string"}, "sum": {"type": "number"}}),
)


# -- cases ------------------------------------------------------------------------------------------------------------


def play(
    room: Room,
    case: str,
    what: str,
    peer: str,
    limit: float | None,
    who: dict[str, Callable[[int], Figures]],
    items: int,
) -> list[Row]:
    """The rounds of Thresher and a peer, and the rows of job and whole."""
    from table import at_least, compared

    played = room.rounds(case, who, {"items": items})
    ours, theirs = played["thresher"], played[peer]
    wholes = [
        [{"seconds": one["whole_seconds"] - one.get("start_seconds", 0)} for one in each] for each in (theirs, ours)
    ]
    target = None if limit is None else at_least(limit)
    rows = [
        compared(f"job, {what}, by {peer}", ours, theirs, target),
        compared(f"whole command, {what}, by {peer}", *wholes, figure="seconds"),
    ]
    if "floor" in played:
        rows.append(compared(f"the hand-written floor's job, {what}, by {peer}", played["floor"], theirs))
    return rows


def floor(room: Room, name: str, source: str, items: int, on_s3: bool = False) -> Figures:
    """A floor of case_files.py: how far ahead of a peer anybody in one process can be."""
    with room.output("floor", on_s3=on_s3) as output:
        figures = room.floor(str(HERE / "case_files.py"), name, source, output, room.model_url)
    if figures["results"] != items:
        raise RuntimeError(f"the floor has written {figures['results']} result files, not {items}")
    return figures


def mlserver_files(room: Room) -> list[Row]:
    """The same 10 KB files, one request each: Thresher has them in a folder, mlserver in its file of requests."""
    from data import make_local

    items = room.items(5_000)
    source = room.folder("in")
    make_local(source, items)
    lines = write_lines(room.folder("lines") / "requests.jsonl", map(file_request, sorted(source.iterdir())))
    who = {
        "mlserver infer": lambda _: mlserver(room, lines, items, "--binary-data"),
        "thresher": lambda _: thresher(room, str(source), items),
    }
    what = f"{items:,} local files of 10 KB, one a request"
    return play(room, "mlserver-files", what, "mlserver infer", 4, who, items)


def mlserver_rows(room: Room) -> list[Row]:
    """The same rows of four numbers, from one file: one a request; then as many a request as each does best."""
    items = room.items(20_000)
    rows = list(rows_of_numbers(items))
    lines = write_lines(room.folder("lines") / "requests.jsonl", map(row_request, rows))
    source = room.folder("in")
    (source / "rows.csv").write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    one = {
        "mlserver infer": lambda _: mlserver(room, lines, items, "--binary-data"),
        "thresher": lambda _: thresher(room, str(source), 1, model_config=ONE_ROW),
    }
    # Tried for --batch-size: 10, 32, 100. The model server reads no number of mlserver's, but each of Thresher's rows.
    many = {
        "mlserver infer": lambda _: mlserver(room, lines, items, "--binary-data", "--batch-size", "32"),
        "thresher": lambda _: thresher(room, str(source), 1, model_config=MANY_ROWS, rows_per_request="auto"),
    }
    what = f"{items:,} rows of four numbers"
    return [
        *play(room, "mlserver-rows", f"{what}, one a request", "mlserver infer", 4, one, items),
        *play(room, "mlserver-joined", f"{what}, several a request", "mlserver infer", None, many, items),
    ]


def ray_local(room: Room) -> list[Row]:
    """20,000 local files of 10 KB."""
    from data import make_local

    items = room.items(20_000)
    source = room.folder("in")
    make_local(source, items)
    who = {
        "Ray Data": lambda _: ray(room, str(source), on_s3=False),
        "thresher": lambda _: thresher(room, str(source), items),
        "floor": lambda _: floor(room, "local", str(source), items),
    }
    return play(room, "ray", f"{items:,} local files of 10 KB", "Ray Data", 8, who, items)


def ray_s3(room: Room) -> list[Row]:
    """5,000 objects of 10 KB."""
    from data import make_objects

    items = room.items(5_000)
    asyncio.run(make_objects(room.s3, items))
    source = "s3://bench-in/items"
    who = {
        "Ray Data": lambda _: ray(room, source, on_s3=True),
        "thresher": lambda _: thresher(room, source, items, on_s3=True),
        "floor": lambda _: floor(room, "s3", source, items, on_s3=True),
    }
    return play(room, "ray-s3", f"{items:,} S3 objects of 10 KB", "Ray Data", 4, who, items)


def cases() -> list[Case]:
    """The cases, if the peers are installed; `make bench-peers` installs them."""
    if not (PEERS / "mlserver").exists():
        print("peers are left out: they are not installed (make bench-peers does so)", file=sys.stderr)
        return []
    return [
        Case("mlserver-files", "local files, by mlserver infer", mlserver_files),
        Case("mlserver-rows", "rows, by mlserver infer", mlserver_rows),
        Case("ray", "local files, by Ray Data", ray_local),
        Case("ray-s3", "objects of S3, by Ray Data", ray_s3),
    ]


if __name__ == "__main__":
    program(cases(), {})
