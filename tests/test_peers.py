"""A peer's answers are counted by what it has written: who lost an item, or answered one twice, has no figures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

BENCHMARKS = Path(__file__).parent / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers")


def answer(number: int, *values: int) -> str:
    return json.dumps({"parameters": {"batch_index": number}, "outputs": [{"name": "n", "data": list(values)}]})


def test_peers__count_no_failed_and_no_doubled_answer_of_mlserver(peers: Any) -> None:
    failed = json.dumps({"parameters": {"batch_index": 2}, "error": {"status": "preprocessing error", "msg": ""}})
    lines = [answer(0, 5), answer(1, 5), answer(1, 5), failed, answer(3), answer(4, 5, 5)]
    assert sorted(set(peers.answered_by_mlserver(lines))) == [0, 1]


def test_peers__count_each_file_that_ray_has_an_answer_to_once(peers: Any, tmp_path: Path) -> None:
    good, bad = '{"ok": true, "n": 1}', '{"ok": false}'
    for number, (paths, answers) in enumerate(
        [(["/in/a.bin", "/in/b.bin"], [good, bad]), (["/in/a.bin", "/in/c.bin"], [good, good])]
    ):
        table = pa.table({"path": paths, "answer": answers})
        parquet.write_table(table, tmp_path / f"{number}.parquet")
    assert set(peers.answered_by_ray(tmp_path)) == {"a.bin", "c.bin"}


def test_peers__are_locked_without_the_host_of_a_registry() -> None:
    lines = (BENCHMARKS / "peers.lock").read_text().splitlines()
    assert not [line for line in lines if "://" in line or "index-url" in line]
    assert [line for line in lines if line.startswith("mlserver==")]
    assert [line for line in lines if line.startswith("ray==")]
