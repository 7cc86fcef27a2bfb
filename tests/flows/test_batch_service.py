"""The flow against a Prefect server: its graph, its states, its results, and what Prefect is told of it."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.model_server import FakeModelServer
from fakes.processes import meanwhile
from prefect.blocks.system import Secret

from tasks.domain.errors import SpecificationError
from tasks.domain.run import RunFailed

pytestmark = pytest.mark.prefect

MODELS = Path(__file__).parents[2] / "infra" / "models"
POOLS = MODELS.with_name("pools")
WRONG_IRIS_ROWS = {70, 77, 83, 106, 119, 133, 134}
"""Rows (from 0) of the 150 that the example model gets wrong; its accuracy is stated as 0.96."""
NAMES_ITS_ENVIRONMENT = """exec {python} - <<'END'
import http.server, json, os
class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body):
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_GET(self): self.answer(b"ok")
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(json.dumps(dict(os.environ)).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
END
"""


@pytest.fixture
def pictures(tmp_path: Path, write_files: Any) -> str:
    """A folder with pictures in sub-folders."""
    names = ("1.jpg", "2.jpg", "a/1.jpg", "a/b/3.png", "b.jpg", "z/1.jpg")
    return str(write_files(tmp_path / "in", {name: f"picture {name}" for name in names}))


def task_runs(ran: Any, poll: Callable[..., Any]) -> dict[str, dict[str, Any]]:
    """The task runs by name; Prefect records them a moment after they ended."""

    def recorded() -> dict[str, dict[str, Any]]:
        found = {task["name"]: task for task in ran.tasks}
        ended = all(task["state_type"] in ("COMPLETED", "FAILED") for task in found.values())
        return found if ended and {"publish", "validate"} & set(found) else {}

    found: dict[str, dict[str, Any]] = poll(recorded, lambda: f"the task runs, there are {ran.tasks}")
    return found


def parents(task: dict[str, Any]) -> set[str]:
    """Ids of the task runs that a task run depends on."""
    return {one["id"] for inputs in task["task_inputs"].values() for one in inputs if one["input_type"] == "task_run"}


def test_graph__is_validate_plan_infer_mapped_over_shards_publish(
    run_service: Any, running: dict[str, str], pictures: str, monkeypatch: pytest.MonkeyPatch, poll: Any
) -> None:
    monkeypatch.setenv("THRESHER_SHARD_ITEMS", "2")
    ran = run_service(input_path=pictures, **running)

    def complete() -> dict[str, Any]:
        tasks = task_runs(ran, poll)
        return tasks if len(tasks) == 6 else {}

    tasks = poll(complete, lambda: f"six task runs, there are {sorted(task['name'] for task in ran.tasks)}")
    assert sorted(tasks) == ["infer-0", "infer-1", "infer-2", "plan", "publish", "validate"]
    assert {task["state_type"] for task in tasks.values()} == {"COMPLETED"}
    ids = {name: task["id"] for name, task in tasks.items()}
    shards = {ids[f"infer-{number}"] for number in range(3)}
    assert parents(tasks["validate"]) == set()
    assert parents(tasks["plan"]) == {ids["validate"]}
    for number in range(3):
        assert parents(tasks[f"infer-{number}"]) >= {ids["validate"], ids["plan"]}
    assert parents(tasks["publish"]) >= {ids["plan"], *shards}
    assert ran.state == "Completed"
    assert [one["source"].removeprefix(pictures) for one in ran.lines] == [
        "/1.jpg", "/2.jpg", "/a/1.jpg", "/a/b/3.png", "/b.jpg", "/z/1.jpg"
    ]  # fmt: skip
    assert ran.summary["shards"] == 3


def test_flow_run__is_named_after_its_service_and_is_completed_although_items_failed(
    run_service: Any, running: dict[str, str], pictures: str
) -> None:
    Path(pictures, "bad.jpg").write_text("FAIL:404")
    ran = run_service(name="flowers", input_path=pictures, **running)
    flow_run = ran.ask(f"/flow_runs/{ran.task_id}")
    assert (flow_run["name"], flow_run["state_type"], flow_run["state_name"]) == ("flowers", "COMPLETED", "Completed")
    assert (ran.result.successful, ran.result.failed) == (6, 1)
    # Its artifact says what came of it and why items failed.
    found = ran.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [ran.task_id]}}})
    (text,) = [one["data"] for one in found if one["key"] == "flowers-summary"]
    for part in (
        "# flowers",
        "| SUCCESSFUL | 6 |",
        "| FAILED | 1 |",
        ran.result.manifest,
        "The model answered HTTP 404",
    ):
        assert part in text


def test_flow_run__is_failed_when_no_item_succeeded_and_only_manifest_and_summary_are_there(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    source = write_files(tmp_path / "in", {"1.jpg": "FAIL:404", "2.jpg": "FAIL:400"})
    ran = run_service(input_path=str(source), **running)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert ran.top == ["infer-result-{id}.manifest", "infer-result-{id}.summary.json"]
    assert [one["result"] for one in ran.lines] == ["FAILED", "FAILED"]
    flow_run = ran.ask(f"/flow_runs/{ran.task_id}")
    assert flow_run["state_type"] == "FAILED"
    assert "No item succeeded" in flow_run["state"]["message"]
    assert not [line for line in ran.logs if "Traceback" in line]


@pytest.mark.slow
def test_iris__answers_each_row_of_the_csv_file_as_the_document_says(run_service: Any, tmp_path: Path) -> None:
    ran = run_service(model=str(MODELS / "iris"), input_path=str(MODELS / "iris" / "data"))
    assert ran.state == "Completed"
    assert ran.manifest == (
        f'{{"source": "{MODELS}/iris/data/iris.csv","result":"SUCCESSFUL",'
        f'"inference-loc": "{tmp_path}/out/infer-result-{ran.task_id}/iris.csv_result.txt"}}\n'
    )
    assert list(ran.files) == ["iris.csv_result.txt"]
    lines = ran.files["iris.csv_result.txt"].decode().splitlines()
    assert lines[:3] == [
        '{"data":{"resp_data":[{"predictresult":"setosa","probability":0.9781}]}}',
        '{"data":{"resp_data":[{"predictresult":"setosa","probability":0.908}]}}',
        '{"data":{"resp_data":[{"predictresult":"setosa","probability":0.9672}]}}',
    ]
    labels = (MODELS / "iris" / "labels.csv").read_text().split()
    species = [json.loads(line)["data"]["resp_data"][0]["predictresult"] for line in lines]
    assert len(species) == 150
    wrong = {row for row, (said, right) in enumerate(zip(species, labels, strict=True)) if said != right}
    assert wrong == WRONG_IRIS_ROWS
    assert ran.summary["rows"] == {"successful": 150, "failed": 0}


@pytest.mark.slow
@pytest.mark.soak
def test_digits__two_instances_answer_pictures_in_sub_folders(run_service: Any, tmp_path: Path) -> None:
    pictures = sorted((MODELS / "digits" / "data").rglob("*.png"))[::25]
    for picture in pictures:
        copy = tmp_path / "in" / picture.relative_to(MODELS / "digits" / "data")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, copy)
    ran = run_service(model=str(MODELS / "digits"), input_path=str(tmp_path / "in"), instances=2)
    assert (ran.state, ran.result.successful) == ("Completed", len(pictures))
    with (MODELS / "digits" / "labels.csv").open(newline="") as file:
        labels = {row[0]: row[1] for row in csv.reader(file) if row}
    answers = {name.removesuffix("_result.txt"): json.loads(text) for name, text in ran.files.items()}
    assert sorted(answers) == sorted(str(one.relative_to(MODELS / "digits" / "data")) for one in pictures)
    right = [answer["predicted_label"] == labels[name] for name, answer in answers.items()]
    assert sum(right) >= 0.9 * len(pictures)


def test_instances__two_of_a_package_share_the_items(
    run_service: Any, package: Any, pictures: str, tmp_path: Path, poll: Callable[..., Any]
) -> None:
    home = package("--state", "state-$PORT.json")
    (home / "run.sh").write_text("echo started >> starts\n" + (home / "run.sh").read_text())
    gate = tmp_path / "gate"
    for number in range(40):
        Path(pictures, f"more-{number:02d}.jpg").write_text(f"{number} FAIL:until:{gate}")

    def seen() -> list[int]:
        """The requests that each instance was given of the items that wait for the gate."""
        return [sum(json.loads(state.read_text())["seen"].values()) for state in home.glob("state-*.json")]

    def answer() -> None:
        try:
            poll(lambda: len(given := seen()) == 2 and all(given), lambda: f"both instances, they got {seen()}")
        finally:
            gate.touch()

    with meanwhile(answer):
        ran = run_service(model=str(home), input_path=pictures, instances=2, max_concurrency=4)
    assert (ran.state, ran.result.successful) == ("Completed", 46)
    assert (home / "starts").read_text() == "started\nstarted\n"
    assert len(seen()) == 2 and min(seen()) > 0 and sum(seen()) == 40
    assert ran.summary["instance_seconds"]["cpu-1"] > ran.summary["seconds"]["infer"]


def test_manifest__order_is_that_of_the_input_manifest(
    run_service: Any, running: dict[str, str], pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_SHARD_ITEMS", "2")
    Path(pictures, "slow.jpg").write_text("FAIL:slow:0.5")
    sources = ["slow.jpg", "z/1.jpg", "2.jpg", "a/b/3.png", "1.jpg"]
    manifest = tmp_path / "in.manifest"
    manifest.write_text("".join(json.dumps({"source": f"in/{name}"}) + "\n" for name in sources))
    ran = run_service(input_path=str(manifest), **running)
    assert [one["source"] for one in ran.lines] == [f"in/{name}" for name in sources]
    assert ran.state == "Completed"
    # The same base name twice: both are kept.
    assert sorted(ran.files) == sorted(
        ["1.jpg_result.txt", "1.jpg~4_result.txt", "2.jpg_result.txt", "3.png_result.txt", "slow.jpg_result.txt"]
    )


def test_output_manifest__filtered_is_a_valid_input_manifest(
    run_service: Any, running: dict[str, str], pictures: str, tmp_path: Path
) -> None:
    Path(pictures, "bad.jpg").write_text("FAIL:404")
    first = run_service(input_path=pictures, **running)
    failed = [line for line in first.manifest.splitlines(keepends=True) if '"FAILED"' in line]
    again = tmp_path / "again.manifest"
    again.write_text("".join(failed))
    Path(pictures, "bad.jpg").write_text("better")
    second = run_service(input_path=str(again), **running)
    assert [(one["source"], one["result"]) for one in second.lines] == [(f"{pictures}/bad.jpg", "SUCCESSFUL")]


def test_output__a_second_run_leaves_the_first_ones_results_alone(
    run_service: Any, running: dict[str, str], pictures: str, tmp_path: Path
) -> None:
    first = run_service(input_path=pictures, **running)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*") if path.is_file()}
    second = run_service(input_path=pictures, **running)
    assert (first.state, second.state) == ("Completed", "Completed")
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sorted(os.listdir(tmp_path / "out")) == sorted(
        f"infer-result-{ran.task_id}{ending}"
        for ran in (first, second)
        for ending in ("", ".manifest", ".summary.json")
    )  # and no scratch folder


def test_output__the_older_layout_has_one_folder_and_wants_it_really_empty(
    run_service: Any, running: dict[str, str], pictures: str, tmp_path: Path
) -> None:
    ran = run_service(input_path=pictures, result_folder="infer-result", **running)
    assert ran.top == ["infer-result", "infer-result-{id}.manifest", "infer-result-{id}.summary.json"]
    assert ran.lines[0]["inference-loc"] == f"{tmp_path}/out/infer-result/1.jpg_result.txt"
    assert (tmp_path / "out" / "infer-result" / "a" / "b" / "3.png_result.txt").is_file()
    again = run_service(input_path=pictures, result_folder="infer-result", **running)
    assert isinstance(again.error, SpecificationError)
    assert "should be an empty folder; it holds 'infer-result'" in str(again.error)


def test_output__words_in_its_path_are_replaced(
    run_service: Any, running: dict[str, str], pictures: str, tmp_path: Path
) -> None:
    path = f"{tmp_path}/{{name}}/{{scheduled_time:%Y}}/{{task_id}}"
    ran = run_service(name="words", input_path=pictures, output_path=path, **running)
    assert re.fullmatch(
        rf"{tmp_path}/words/20\d\d/{ran.task_id}/infer-result-{ran.task_id}.manifest", ran.result.manifest
    )
    assert Path(ran.result.manifest).is_file()


def test_flow__is_called_like_a_function_and_awaited_like_a_coroutine(
    prefect_server: str, running: dict[str, str], pictures: str, tmp_path: Path
) -> None:
    from flows.batch_service import batch_service
    from tasks.domain.service import BatchService

    service = BatchService(input_path=pictures, output_path=str(tmp_path / "out"), **running)
    called = batch_service(service)
    assert (called.successful, called.failed) == (6, 0)

    async def awaited() -> Any:
        return await batch_service(service)

    assert asyncio.run(awaited()).successful == 6
    with pytest.raises(SpecificationError, match="there is no such folder or file"):
        batch_service(BatchService(input_path="/no/where", output_path=str(tmp_path / "out"), **running))


def test_logs__of_a_mistake_name_every_problem_without_a_stack_trace(
    run_service: Any, running: dict[str, str], pictures: str, poll: Any
) -> None:
    ran = run_service(
        input_path="/no/where", request_path="/other", resource_pool="moon", output_path=pictures, **running
    )
    assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
    text = str(ran.error)
    assert "(4 problems)" in text
    for part in (
        "request_path = '/other': the model answers at: /, /iris, /echo",
        "resource_pool = 'moon': there is no such resource pool, contact the administrator; there are: ",
        "input_path = '/no/where': there is no such folder or file",
        "should be an empty folder; it holds '1.jpg' and 4 more",
    ):
        assert part in text
    pools = text.partition("administrator; there are: ")[2].partition("\n")[0].split(", ")
    # The server's own are named, too: those that other tests have made on it.
    assert pools == sorted(pools) and {path.stem for path in POOLS.glob("*.yaml")} <= set(pools)
    logs = poll(lambda: [one for one in [ran.logs] if any("Finished in state" in line for line in one)])[0]
    assert any("4 problems" in line for line in logs)
    assert not [line for line in logs if "Traceback" in line or 'File "' in line]


def test_secret__reaches_the_model_server_and_nothing_else(
    run_service: Any, package: Any, pictures: str, poll: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Secret(value="opensesame").save("cave-word", overwrite=True)
    monkeypatch.setenv("MY_OWN_SHELL", "not for the model")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for the model either")
    home = package(script=NAMES_ITS_ENVIRONMENT.format(python=sys.executable))
    given = {"CAVE_PASSWORD": "{{ prefect.blocks.secret.cave-word }}!", "PLAIN": "value"}
    ran = run_service(model=str(home), input_path=pictures, environment=given)
    assert ran.state == "Completed"
    seen = json.loads(ran.files["1.jpg_result.txt"])
    assert (seen["CAVE_PASSWORD"], seen["PLAIN"]) == ("opensesame!", "value")
    foreign = {"MY_OWN_SHELL", "AWS_SECRET_ACCESS_KEY", "PREFECT_API_URL", "PREFECT_HOME", "THRESHER_CACHE"}
    assert not foreign & set(seen)
    tasks = task_runs(ran, poll)
    flow_run = ran.ask(f"/flow_runs/{ran.task_id}")
    artifacts = ran.ask("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [ran.task_id]}}})
    told = json.dumps([tasks, flow_run, artifacts, ran.logs, ran.summary]) + ran.manifest
    assert "opensesame" not in told
    assert "{{ prefect.blocks.secret.cave-word }}!" in json.dumps(flow_run["parameters"])
    assert not [one for one in ran.logs if "looks like a secret" in one]


def test_secret__that_does_not_exist_is_named_before_anything_starts(
    run_service: Any, package: Any, pictures: str, tmp_path: Path
) -> None:
    given = {"WORD": "{{ prefect.blocks.secret.nobody }}"}
    ran = run_service(model=str(package()), input_path=pictures, environment=given)
    assert isinstance(ran.error, SpecificationError)
    assert "environment.WORD = 'nobody': there is no Prefect Secret block of this name" in str(ran.error)
    assert not (tmp_path / "out").exists()


def test_secret__in_plain_text_brings_a_warning_that_does_not_repeat_it(
    run_service: Any, running: dict[str, str], pictures: str
) -> None:
    ran = run_service(input_path=pictures, environment={"DB_PASSWORD": "hunter2"}, **running)
    assert ran.state == "Completed"
    warnings = [line for line in ran.logs if "looks like a secret in plain text" in line]
    assert len(warnings) == 1 and "environment.DB_PASSWORD" in warnings[0]
    assert "hunter2" not in "\n".join(ran.logs) + json.dumps(ran.summary)


def test_resume__the_same_flow_run_keeps_its_plan_and_repeats_no_finished_shard(
    run_service: Any, running: dict[str, str], model: FakeModelServer, tmp_path: Path, write_files: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("THRESHER_SHARD_ITEMS", "2")
    source = write_files(tmp_path / "in", {f"{number}.jpg": f"resume {number}" for number in range(8)})
    before = model.stats()["requests"].get("/", 0)
    # The report of shard 2 cannot be written.
    real = os.replace
    broken = {"/shards/00002/report-"}

    def replace(old: Any, new: Any, *rest: Any, **named: Any) -> None:
        if any(name in str(new) for name in broken):
            raise OSError(28, "No space left on device")
        real(old, new, *rest, **named)

    monkeypatch.setattr(os, "replace", replace)
    first = run_service(input_path=str(source), **running)
    assert first.state == "Failed"
    assert "No space left on device" in str(first.error)
    assert first.top == [".infer-result-{id}", "infer-result-{id}"]
    assert model.stats()["requests"]["/"] == before + 8
    plan = tmp_path / "out" / f".infer-result-{first.task_id}" / "plan.json"
    assert b'"items":8,' in plan.read_bytes()

    broken.clear()
    (source / "9.jpg").write_text("came later, is not in the plan")
    second = run_service(again=first.task_id, input_path=str(source), **running)
    assert (second.state, second.task_id) == ("Completed", first.task_id)
    assert [one["source"].rpartition("/")[2] for one in second.lines] == [f"{number}.jpg" for number in range(8)]
    assert len(second.files) == 8
    assert model.stats()["requests"]["/"] == before + 8 + 2  # the two items of the shard without a report
    assert second.top == ["infer-result-{id}", "infer-result-{id}.manifest", "infer-result-{id}.summary.json"]
    assert second.summary["items"] == {"planned": 8, "successful": 8, "failed": 0, "not_processed": 0}


def test_error_threshold__stops_the_run_early_and_accounts_for_every_item(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    source = write_files(tmp_path / "in", {f"{number:03d}.jpg": f"{number} FAIL:404" for number in range(300)})
    (source / "000.jpg").write_text("good")
    ran = run_service(input_path=str(source), error_threshold=5, max_concurrency=1, **running)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert "stopped early because 6 items had failed" in str(ran.error)
    assert len(ran.lines) == 300
    assert ran.messages["299.jpg"].startswith("Not processed: the run was stopped early")
