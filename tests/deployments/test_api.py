"""`import thresher`: its names, what it imports, and the items of a run."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import subprocess
import sys
import tracemalloc
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import thresher as api
from fakes import processes
from fakes.s3_server import S3Server

NAMES = {
    *("BatchService", "ItemOutcome", "Result", "Results", "Run", "Service"),
    *("RunError", "SpecificationError", "ThresherError"),
    *("deploy", "results", "run", "show", "start", "stop", "wait"),
}
TASK_ID = str(uuid.UUID(int=7))


def test_api__has_these_names_only() -> None:
    assert set(api.__all__) == NAMES
    assert len(api.__all__) == len(NAMES)
    for name in NAMES:
        assert getattr(api, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'lifecycle'"):
        _ = api.lifecycle
    assert Path(api.__file__).with_name("py.typed").exists()


@pytest.mark.parametrize("name", sorted(name for name in NAMES if name.islower()))
def test_api__shows_an_example_of_each_function(name: str) -> None:
    text = inspect.getdoc(getattr(api, name)) or ""
    example = inspect.cleandoc(text.partition("::\n")[2])
    assert f"thresher.{name}(" in example
    compile(example, name, "exec")


def test_api__imports_prefect_only_when_it_is_needed(tmp_path: Path) -> None:
    heavy = ("prefect", "dask", "distributed", "fastapi", "sqlalchemy", "pyarrow", "obstore", "rich", "yaml", "uvloop")
    program = f"import sys, thresher; print(sorted({set(heavy)} & set(sys.modules))); thresher.Run; print(thresher.Run)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.splitlines() == ["[]", "<class 'deployments.services.service.Execution'>"], done.stderr


@pytest.mark.parametrize("name", ["flows", "tasks", "deployments"])
def test_api__says_which_package_of_a_program_hides_its_own(tmp_path: Path, write_files: Any, name: str) -> None:
    write_files(tmp_path, {f"{name}/__init__.py": "", f"{name}/own.py": "", "program.py": "import thresher"})
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
        env={"PYTHONPATH": processes.PYTHON_START},
    )  # fmt: skip
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {tmp_path / name} hides Thresher's package of the same name: rename it")


# -- results --------------------------------------------------------------------------------------------------------


def published(folder: Path, lines: list[str], items: int | None = None) -> Path:
    """An output manifest and its summary."""
    folder.mkdir(exist_ok=True)
    manifest = folder / f"infer-result-{TASK_ID}.manifest"
    manifest.write_text("".join(f"{line}\n" for line in lines))
    counts = {"planned": len(lines) if items is None else items, "failed": 0}
    summary = {"manifests": [str(manifest)], "items": counts}
    (folder / f"infer-result-{TASK_ID}.summary.json").write_text(json.dumps(summary))
    return manifest


def successful(source: str, location: object) -> str:
    return json.dumps({"source": source, "result": "SUCCESSFUL", "inference-loc": str(location)})


def failed(source: str, message: str, **more: str) -> str:
    return json.dumps({"source": source, "result": "FAILED", "error_message": message, **more})


def test_results__has_each_item_with_its_answer_or_its_error(tmp_path: Path, write_files: Any) -> None:
    out = write_files(tmp_path / "out", {"a_result.txt": b"\xff\x00A", "rows_result.txt": b'{"n":1}\n{"error":"x"}\n'})
    lines = [
        successful("/in/a", out / "a_result.txt"),
        failed("/in/rows.csv", "1 of 2 rows failed", **{"inference-loc": f"file://{out}/rows_result.txt"}),
        failed("https://host/c?signature=s", "Download file failed."),
    ]
    found = api.results(published(out, lines))
    assert found.manifest == str(out / f"infer-result-{TASK_ID}.manifest")
    a, rows, c = found
    assert (a.source, a.succeeded, a.error, a.answer()) == ("/in/a", True, "", b"\xff\x00A")
    assert (rows.succeeded, rows.error, rows.answer()) == (False, "1 of 2 rows failed", b'{"n":1}\n{"error":"x"}\n')
    assert (c.succeeded, c.error) == (False, "Download file failed.")
    with pytest.raises(api.ThresherError, match=re.escape("https://host/c?... has no answer: Download file failed.")):
        c.answer()
    assert [one.source for one in found] == ["/in/a", "/in/rows.csv", "https://host/c?signature=s"]  # once more
    (out / "a_result.txt").unlink()
    with pytest.raises(api.RunError, match=r"The result file .*/a_result.txt cannot be read: "):
        a.answer()


def test_results__are_read_in_async_code_as_well(tmp_path: Path, write_files: Any) -> None:
    out = write_files(tmp_path / "out", {"a_result.txt": "A"})
    manifest = published(out, [successful("/in/a", out / "a_result.txt")])

    async def read() -> list[bytes]:
        return [item.answer() for item in api.results(manifest)]

    assert asyncio.run(read()) == [b"A"]


def test_results__are_read_from_a_bucket_with_the_administrator_s_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = f"s3://data/out/infer-result-{TASK_ID}.manifest"
    with S3Server(tmp_path / "s3") as s3:
        s3.put("data", manifest.removeprefix("s3://data/"), successful("s3://data/in/a", "s3://data/out/a").encode())
        s3.put("data", "out/a", b"A")
        with monkeypatch.context() as patch:
            for name, value in s3.environment().items():
                patch.setenv(name, value)
            (a,) = api.results(manifest)
            assert (a.source, a.answer(), a.answer()) == ("s3://data/in/a", b"A", b"A")
            patch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
            with pytest.raises(api.RunError, match=f"The output manifest {manifest} cannot be read: No permission"):
                api.results(manifest)


def test_results__of_many_items_are_read_as_they_are_asked_for(tmp_path: Path) -> None:
    manifest = published(tmp_path, [successful(f"/in/{number:06}", "/out/" + "x" * 400) for number in range(40_000)])
    assert manifest.stat().st_size > 18_000_000
    found = api.results(manifest)
    list(zip(found, range(1), strict=False))  # what the first use imports does not count
    tracemalloc.start()
    try:
        assert sum(item.succeeded for item in found) == 40_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8_000_000


def test_results__not_read_to_their_end_do_not_hold_up_the_end_of_a_program(tmp_path: Path) -> None:
    manifest = published(tmp_path, [successful(f"/in/{number:06}", "/out/" + "x" * 400) for number in range(10_000)])
    program = "import sys, thresher; items = iter(thresher.results(sys.argv[1])); print(next(items).source)"
    done = subprocess.run(
        [sys.executable, "-c", program, manifest],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "/in/000000\n", "")


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda manifest: manifest.unlink(), "there is no such output manifest"),
        (
            lambda manifest: manifest.write_text(manifest.read_text() + "{\n"),
            "line 3 of {name} is no line of an output",
        ),
        (lambda manifest: published(manifest.parent, [failed("/in/a", "x")], items=2), "it is damaged: it has 1 lines"),
        (lambda manifest: manifest.with_name(f"infer-result-{TASK_ID}.summary.json").write_text("{"), "is damaged"),
    ],
    ids=["missing", "line", "cut", "summary"],
)
def test_results__of_a_manifest_that_is_missing_or_damaged_are_refused(
    tmp_path: Path, damage: Callable[[Path], Any], cause: str
) -> None:
    manifest = published(tmp_path, [failed("/in/a", "x"), failed("/in/b", "y")])
    damage(manifest)
    with pytest.raises(api.RunError) as refused:
        list(api.results(manifest))
    assert str(refused.value).startswith(f"The output manifest {manifest} cannot be read: ")
    assert cause.format(name=manifest.name) in str(refused.value)


@pytest.mark.parametrize("given", ["out/other.manifest", f"out/infer-result-{TASK_ID}_1.manifest", "", "ftp://h/x"])
def test_results__of_another_file_are_refused_as_a_mistake_of_the_call(given: str) -> None:
    with pytest.raises(api.SpecificationError, match=r"^MANIFEST = "):
        api.results(given)


# -- run ------------------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, sys, thresher
fields, missing = {fields!r}, {{**{fields!r}, "input_path": "no/such/folder"}}
async def work():
    try:
        await thresher.run(missing)
    except thresher.SpecificationError as error:
        print(error.problems[0].field)
    from tasks.engine import progress, sessions
    held_up = asyncio.create_task(thresher.run({{**fields, "input_path": "held-up", "output_path": "stopped"}}))
    while not any(one.phase == "inferring" for one in progress.runs().values()):
        assert not held_up.done(), held_up
        await asyncio.sleep(0.05)
    held_up.cancel()
    try:
        await held_up
    except asyncio.CancelledError:
        print("cancelled", sessions.sessions._held)
    return await thresher.run(fields)
result = asyncio.run(work()) if sys.argv[1] == "awaited" else thresher.run(thresher.BatchService(**fields))
print(result.counts)
for item in result:
    print(item.source.rpartition("/")[2], item.answer() if item.succeeded else item.error)
"""
# The cheaper half runs against the worker's server, the other as a program that has no server.


@pytest.mark.slow
@pytest.mark.parametrize("how", [pytest.param("awaited", marks=pytest.mark.prefect), "called"])
def test_run__in_a_program_prints_nothing_and_gives_the_items(
    thresher: Any, running: dict[str, str], tmp_path: Path, write_files: Any, how: str, request: pytest.FixtureRequest
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "one", "2.jpg": "FAIL:400"})
    write_files(tmp_path / "held-up", {"1.jpg": f"FAIL:until:{tmp_path}/never"})
    fields = {"input_path": "in", "output_path": "out", "request_path": "/", **running}
    env = {"PREFECT_API_URL": request.getfixturevalue("prefect_server")} if how == "awaited" else {}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(fields=fields), how], cwd=tmp_path, env=thresher.environment(env),
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    before = ["input_path", "cancelled {}"] if how == "awaited" else []
    first, *lines = done.stdout.splitlines()[len(before) :]
    assert done.stdout.splitlines()[: len(before)] == before
    assert first.startswith("1 of 2 items SUCCESSFUL, 1 FAILED")
    assert lines[0].startswith("1.jpg b'") and lines[1].startswith("2.jpg ") and "400" in lines[1]
