"""Runs under hostile input and bad luck: every item has its line, the run ends soon, nothing is left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fakes import processes
from fakes.model_behaviour import item_key
from fakes.model_server import FakeModelServer
from fakes.processes import die_with_parent, meanwhile
from prefect.blocks.system import Secret

from tasks.domain.errors import SpecificationError, StorageError
from tasks.domain.run import DeadlinePassed, RunFailed
from tasks.domain.stop import Stop
from tasks.engine.ending import Ending

pytestmark = pytest.mark.prefect

ROOT = Path(__file__).parents[2]


# -- addresses ------------------------------------------------------------------------------------------------------


def test_manifest__with_hostile_sources_costs_those_items_only(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    folder = write_files(tmp_path / "in", {f"{number}.jpg": f"good {number}" for number in range(6)})
    hostile = [
        "s3://a b/x", "s3://a\nb/c", "s3://你好/x", "s3://[/x", "x" * 10_000, f"{folder}/{'y' * 10_000}",
        f"s3://{'z' * 10_000}/x", "s3://", "s3:///x", "file://x", "gopher://x/y", "http://[/x", "a\0b",
        "https://user:word@[::1/x", "obs://..%2f/x",
    ]  # fmt: skip
    good = [f"{folder}/{number}.jpg" for number in range(6)]
    sources = [one for pair in zip(hostile, good * 3, strict=False) for one in pair]
    manifest = tmp_path / "hostile.manifest"
    manifest.write_text("".join(json.dumps({"source": source}) + "\n" for source in sources))
    ran = run_service(input_path=str(manifest), **running)
    assert ran.state == "Completed", ran.error
    assert [line["source"] for line in ran.lines] == sources
    for line in ran.lines:
        expected = "SUCCESSFUL" if line["source"] in good else "FAILED"
        assert line["result"] == expected, line
        assert "Unexpected" not in line.get("error_message", ""), line
    assert ran.summary["items"] == {"planned": 30, "successful": 15, "failed": 15, "not_processed": 0}
    assert len(ran.files) == 15


@pytest.mark.parametrize("linked", ["input", "output", "both"])
def test_output__inside_the_input_is_refused_also_behind_links(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any, linked: str
) -> None:
    real = write_files(tmp_path / "in", {"1.jpg": "x"})
    (real / "results").mkdir()
    (tmp_path / "link").symlink_to(real)
    (tmp_path / "out-link").symlink_to(real / "results")
    source = real if linked == "output" else tmp_path / "link"
    output = real / "results" if linked == "input" else tmp_path / "out-link"
    ran = run_service(input_path=str(source), output_path=str(output), **running)
    assert (ran.state, type(ran.error)) == ("Failed", SpecificationError)
    assert "should not lie inside the input folder" in str(ran.error)
    assert list((real / "results").iterdir()) == []


# -- stopping early -------------------------------------------------------------------------------------------------


def test_error_threshold__stops_the_run_and_every_item_has_its_line(
    run_service: Any, running: dict[str, str], model: FakeModelServer, tmp_path: Path, write_files: Any
) -> None:
    names = [f"{number:02d}.jpg" for number in range(40)]
    texts = {
        name: f"threshold FAIL:404 {name}" if number % 4 == 3 else f"threshold FAIL:slow:0.2 {name}"
        for number, name in enumerate(names)
    }
    source = write_files(tmp_path / "in", texts)
    before = model.stats()["requests"].get("/", 0)
    ran = run_service(input_path=str(source), error_threshold=3, max_concurrency=2, **running)
    sent = model.stats()["requests"]["/"] - before
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert sent < 40
    reason = "the run was stopped early because 4 items had failed (error_threshold 3)."
    assert f"T{reason[1:]}" in str(ran.error)
    assert [line["source"].rpartition("/")[2] for line in ran.lines] == names
    said = list(ran.messages.values())
    unsent = [message for message in said if message == f"Not processed: {reason}"]
    refused = [message for message in said if message.startswith("The model answered HTTP 404")]
    assert len(unsent) + len(refused) + said.count("SUCCESSFUL") == 40
    assert len(unsent) == 40 - sent and unsent
    assert len(refused) in (4, 5)  # one more may have been under way
    assert len(ran.files) == said.count("SUCCESSFUL")


def test_deadline__ends_a_run_whose_model_hangs_and_every_item_has_its_line(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THRESHER_SHARD_ITEMS", "2")  # the later shards have not begun when the time is over
    source = write_files(tmp_path / "in", {f"{number:02d}.jpg": f"late FAIL:hang {number}" for number in range(20)})
    ran = run_service(input_path=str(source), deadline_minutes=0.2, **running)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    reason = "the run was stopped early because its deadline (0.2 minutes) had passed."
    assert f"T{reason[1:]}" in str(ran.error) and ran.summary["failure"] == f"T{reason[1:]}"
    assert list(ran.messages.values()) == [f"Not processed: {reason}"] * 20
    assert ran.ask(f"/flow_runs/{ran.task_id}")["state_type"] == "FAILED"
    assert not [line for line in ran.logs if "Traceback" in line]


def test_deadline__while_the_model_is_being_prepared_publishes_a_manifest(
    run_service: Any, package: Callable[..., Path], tmp_path: Path, write_files: Any
) -> None:
    source = write_files(tmp_path / "in", {"1.jpg": "a", "2.jpg": "b"})
    model = str(package(f"--health-when={tmp_path}/never"))
    ran = run_service(input_path=str(source), model=model, request_path="/", deadline_minutes=0.2)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert [message[:13] for message in ran.messages.values()] == ["Not processed"] * 2
    assert "its deadline (0.2 minutes) had passed" in ran.summary["failure"]


def test_deadline__while_the_storage_does_not_answer_ends_the_run_with_nothing_to_account_for(
    run_service: Any, running: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:  # it listens, and that is all
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for name, value in (("ENDPOINT_URL", endpoint), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
            monkeypatch.setenv(f"AWS_{name}", value)
        ran = run_service(
            input_path="s3://bucket/in", output_path=str(tmp_path / "out"), deadline_minutes=0.05, **running
        )
    assert (ran.state, type(ran.error)) == ("Failed", DeadlinePassed)
    assert "while it was being checked, because its deadline (0.05 minutes) had passed; nothing was sent." in str(
        ran.error
    )
    assert not (tmp_path / "out").exists()


def test_output__that_is_gone_ends_the_run_soon(
    run_service: Any, running: dict[str, str], model: FakeModelServer, tmp_path: Path, write_files: Any,
    poll: Callable[..., Any], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    # Each item is answered when the test says so: two before the folder is gone, and the next two right after.
    gates = {f"{number:02d}.jpg": tmp_path / f"gate-{number}" for number in range(60)}
    texts = {name: f"gone FAIL:until:{gate}" for name, gate in gates.items()}
    source = write_files(tmp_path / "in", texts)
    out = tmp_path / "out"
    before = model.stats()["requests"].get("/", 0)

    def sent(number: int) -> list[Path]:
        seen = model.stats()["seen"]
        found = [gates[name] for name, text in texts.items() if item_key(text.encode()) in seen]
        return found if len(found) == number else []

    def answer_all() -> None:
        for gate in gates.values():
            gate.touch()

    def take_away() -> None:
        try:
            for gate in poll(lambda: sent(2), "two requests"):
                gate.touch()
            poll(lambda: list(out.glob("infer-result-*/*_result.txt")), "a result")
            last = poll(lambda: sent(4), "two more requests")
            out.rename(tmp_path / "elsewhere")
            for gate in last:
                gate.touch()
        except BaseException:
            answer_all()
            raise

    stop = Ending.stop

    def stopped(ending: Ending, reason: Stop) -> None:
        stop(ending, reason)
        answer_all()  # also what was sent while the first answer could not be written

    monkeypatch.setattr(Ending, "stop", stopped)
    with meanwhile(take_away):
        ran = run_service(input_path=str(source), max_concurrency=2, **running)
    assert (ran.state, type(ran.error)) == ("Failed", StorageError)
    assert str(out) in str(ran.error) and "\n" not in str(ran.error)
    assert model.stats()["requests"]["/"] - before <= 6
    assert not out.exists()
    assert not [line for line in ran.logs if "Traceback" in line]


# -- nothing is left ------------------------------------------------------------------------------------------------

CALLER = """
import sys
from flows.batch_service import batch_service
from tasks.domain.service import BatchService

batch_service(BatchService(model=sys.argv[1], input_path=sys.argv[2], output_path=sys.argv[3]))
"""


@pytest.mark.slow
def test_call__in_plain_python_that_is_killed_leaves_nothing(
    thresher: Any, package: Any, tmp_path: Path, write_files: Any, poll: Any, processes_of: Any
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    state = tmp_path / "state.json"
    home = package("--state", str(state), "--spawn-child", "setsid")
    source = write_files(tmp_path / "in", {"1.jpg": "FAIL:hang", "2.jpg": "good"})
    env = thresher.environment({"TMPDIR": str(tmp), "PYTHONPATH": processes.PYTHONPATH})
    assert "PREFECT_API_URL" not in env
    log = tmp_path / "caller.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", CALLER, str(home), str(source), str(tmp_path / "out")], cwd=tmp_path, env=env,
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, preexec_fn=die_with_parent,
        )  # fmt: skip

    def hangs() -> bool:
        assert process.poll() is None, log.read_text()
        return state.exists() and bool(json.loads(state.read_text())["seen"])

    try:
        poll(hangs, "the request that hangs", seconds=120)
        commands = " | ".join(processes_of(tmp).values())
        for part in ("prefect_app", "--adopt", "warden.py", "model_server.py", "sleep 3600"):
            assert part in commands
    finally:
        process.kill()
        process.wait()
    poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
    poll(lambda: not list(tmp.glob("thresher-*")), lambda: list(tmp.glob("thresher-*")))


# -- secrets --------------------------------------------------------------------------------------------------------


def test_secrets__that_a_model_server_prints_are_not_in_the_error(
    run_service: Any, package: Any, tmp_path: Path, write_files: Any
) -> None:
    Secret(value="from-a-block-77").save("robustness-dsn", overwrite=True)
    Secret(value={"password": "inside-json-88"}).save("robustness-json", overwrite=True)
    script = (
        'echo "password $DB_PASSWORD, dsn $DSN, url http://x/$DB_PASSWORD, mode $MODE"\n'
        'inside=${URL#*u:}; json=${BOTH%\\"*}; echo "parsed ${inside%@*}, of json ${json##*\\"}"; exit 3\n'
    )
    source = write_files(tmp_path / "in", {"1.jpg": "x"})
    environment = {
        "DB_PASSWORD": "hunter22", "DSN": "{{ prefect.blocks.secret.robustness-dsn }}", "MODE": "visible",
        "URL": "postgres://u:{{ prefect.blocks.secret.robustness-dsn }}@h/db",
        "BOTH": "{{ prefect.blocks.secret.robustness-json }}",
    }  # fmt: skip
    ran = run_service(model=str(package(script=script)), input_path=str(source), environment=environment)
    assert (ran.state, type(ran.error)) == ("Failed", RunFailed)
    assert "status 3" in str(ran.error)
    assert "password ***, dsn ***, url http://x/***, mode visible" in str(ran.error)
    assert "parsed ***, of json ***" in str(ran.error)
    everything = str(ran.error) + "\n".join(ran.logs) + ran.manifest + str(ran.summary)
    assert [one for one in ("hunter22", "from-a-block-77", "inside-json-88") if one in everything] == []
    assert os.environ.get("DB_PASSWORD") is None


# -- published is published -----------------------------------------------------------------------------------------


def test_run__whose_summary_artifact_is_refused_is_completed(
    run_service: Any, running: dict[str, str], tmp_path: Path, write_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(**_: object) -> None:
        raise RuntimeError("no artifacts today")

    monkeypatch.setattr("tasks.publish.acreate_markdown_artifact", refuse)
    ran = run_service(input_path=str(write_files(tmp_path / "in", {"1.jpg": "x"})), **running)
    assert ran.state == "Completed", ran.error
    assert ran.messages == {"1.jpg": "SUCCESSFUL"}
    assert "summary artifact not created: RuntimeError" in ran.logs


def test_model__is_told_its_name(run_service: Any, tmp_path: Path, write_files: Any, package: Any) -> None:
    source = write_files(tmp_path / "in", {"1.jpg": "x"})
    script = """
import json, os
from model_service.model_service import SingleNodeService
class Named(SingleNodeService):
    def _preprocess(self, data): return data
    def _inference(self, data): return {"name": self.model_name}
    def _postprocess(self, data): return data
"""
    home = package(folder="called-so", model_type="Custom", apis=[{"request": {"data": {
        "type": "object", "properties": {"images": {"type": "file"}}}}}])  # fmt: skip
    (home / "run.sh").unlink()
    (home / "model").mkdir()
    (home / "config.json").rename(home / "model" / "config.json")
    (home / "model" / "customize_service.py").write_text(script)
    ran = run_service(input_path=str(source), model=str(home))
    assert ran.state == "Completed", ran.error
    assert json.loads(ran.files["1.jpg_result.txt"]) == {"name": "called-so"}
