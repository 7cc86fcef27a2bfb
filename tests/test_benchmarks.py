"""The benchmark really runs, and nobody who lost something has figures in its table."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from fakes.model_server import FakeModelServer

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "tests" / "benchmarks"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of the benchmark, as its own programs do."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


def test_room__has_no_figures_of_a_contestant_that_lost_an_item(module: Any, tmp_path: Path) -> None:
    room = module("room")
    honest = {"items": 20, "results": 20, "rate": 1.0}
    with room.Room(rounds=1, scratch=tmp_path) as place:
        for lost in ("items", "results"):
            who = {"floor": lambda _: honest, "thresher": lambda _, lost=lost: {**honest, lost: 19}}
            with pytest.raises(room.LostItems, match=f"thresher has 19 {lost}, not 20"):
                place.rounds("files", who, {"items": 20, "results": 20})
        assert place.rounds("files", {"floor": lambda _: honest}, {"items": 20})["floor"] == [honest]


def test_room__counts_result_files_itself(module: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    module("data").make_local(source, 3)
    with FakeModelServer() as model, module("room").Room(scratch=tmp_path) as place:
        with place.output("floor") as output:
            figures = place.floor(str(BENCHMARKS / "case_files.py"), "local", str(source), output, model.url)
            assert (figures["items"], figures["results"]) == (3, 3)
            next(place.result_files(output)).unlink()
            assert place.results(output) == 2
        assert not Path(output).exists()


def test_room__says_why_a_contestant_ended(module: Any, tmp_path: Path) -> None:
    with (
        module("room").Room(scratch=tmp_path) as place,
        pytest.raises(RuntimeError, match=r"ended with 1\n(.|\n)*nobody listens"),
    ):
        place.run([sys.executable, "-c", "raise SystemExit('nobody listens')"])


def test_room__turns_the_order_of_its_rounds(module: Any, tmp_path: Path) -> None:
    order: list[str] = []

    def contestant(name: str) -> Any:
        return lambda number: order.append(f"{name}{number}") or {"rate": 1.0}

    with module("room").Room(rounds=3, scratch=tmp_path) as place:
        place.rounds("files", {"a": contestant("a"), "b": contestant("b")}, {})
    assert order == ["a0", "b0", "b1", "a1", "a2", "b2"]


def test_csv__names_the_first_line_that_is_different(module: Any, tmp_path: Path) -> None:
    reference = module("case_csv").Reference()
    path = tmp_path / "1.csv_result.txt"
    for text in ("{}\n{}\n", "{}\n{}\n"):
        path.write_text(text)
        assert reference.check(iter([path])) == 2
    path.write_text('{}\n{"a": 1}\n')
    with pytest.raises(ValueError, match=r"1\.csv_result\.txt is different from line 2 on"):
        reference.check(iter([path]))
    with pytest.raises(ValueError, match="other result files"):
        reference.check(iter([]))


def test_table__compares_round_by_round(module: Any) -> None:
    table = module("table")
    ours, floor = [{"rate": rate} for rate in (50, 80, 90)], [{"rate": rate} for rate in (100, 100, 90)]
    row = table.compared("files", ours, floor, table.at_least(0.8))
    assert (row.lowest, row.median, row.highest, row.verdict) == (0.5, 0.8, 1.0, "met")
    missed = table.measured("memory", [150, 201, 250], table.at_most(200), "MB")
    assert "| memory | ≤ 200 MB | 201 MB (150 - 250) | missed |" in table.markdown([row, missed])
    assert table.measured("reported", [1.0]).verdict == ""


@pytest.mark.slow
@pytest.mark.xdist_group("benchmarks")
def test_bench__prints_targets_and_writes_json_markdown_and_chart(tmp_path: Path) -> None:
    command = [
        *(
            sys.executable,
            str(BENCHMARKS / "bench.py"),
            "--only",
            "files",
            "size",
            "--share",
            "0.0002",
            "--rounds",
            "1",
        ),
        *("--json", str(tmp_path / "all.json"), "--markdown", str(tmp_path / "all.md")),
        *("--chart", str(tmp_path / "size.svg"), "--scratch", str(tmp_path)),
    ]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "all.json").read_text())
    assert {row["what"].split(",")[0] for row in found["table"]} >= {"inference phase", "peak memory"}
    assert all(row["verdict"] in {"met", "missed"} and row["median"] > 0 for row in found["table"])
    assert [one["items"] for one in found["rounds"]["files"]["thresher"]] == [20]
    assert [one["results"] for one in found["rounds"]["size"]["200"]] == [200]
    assert (tmp_path / "all.md").read_text() in done.stdout
    chart = ElementTree.parse(tmp_path / "size.svg").getroot()
    assert "200" in {text.text for text in chart.iter("{http://www.w3.org/2000/svg}text")}
    assert not list(tmp_path.glob("bench-*"))  # nothing is left


@pytest.mark.soak
@pytest.mark.xdist_group("benchmarks")
def test_who_schedules__loses_no_item_either_way(
    module: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    options = ("--only", "equal", "--rounds", "1", "--items", "24", "--instances", "2", "--json", str(figures))
    module("who_schedules").main(*options)
    found = json.loads(figures.read_text())["equal"]
    assert [(one["lost"], one["sent_twice"], one["tries"]) for way in found.values() for one in way] == [(0, 0, 1)] * 2
    assert found["dask"][0]["tasks"] > found["coordinator"][0]["tasks"] > 0
    (row,) = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| all equal")]
    assert row[3:] == ["0 / 0", "0 / 0", "1 of 1 / 1 of 1 |"]
