"""The command: exit codes, what goes to which stream, what is left when it is stopped.

In a process of its own (`thresher`) where it runs a service, else in this one (`command`).
"""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.model_behaviour import item_key
from fakes.model_server import FakeModelServer
from fakes.processes import die_with_parent

pytestmark = pytest.mark.prefect

MODELS = Path(__file__).parents[2] / "infra" / "models"
STOPPED = "Stopped before the end: nothing is left running, and there is no complete output manifest. "
BOUNDARY = re.compile(r"thresher-[0-9a-f]{32}")


@pytest.fixture
def against_server(prefect_server: str) -> dict[str, str]:
    """Variables that lead the command to this worker's Prefect server."""
    return {"PREFECT_API_URL": prefect_server}


@pytest.fixture
def spec(tmp_path: Path, running: dict[str, str], write_files: Any) -> Callable[..., Path]:
    """Writes a specification with two pictures as its input; fields override."""

    def write(**fields: Any) -> Path:
        if not (tmp_path / "in").exists():
            write_files(tmp_path / "in", {"1.jpg": "one", "2.jpg": "two"})
        path = tmp_path / "spec.yaml"
        path.write_text(json.dumps({"name": "cli", **running, "input_path": "in", "output_path": "out", **fields}))
        return path

    return write


# -- run ------------------------------------------------------------------------------------------------------------


def test_run__prints_the_manifests_address_only_and_exits_0(
    thresher: Any, spec: Any, against_server: dict[str, str], tmp_path: Path
) -> None:
    done = thresher("run", spec(), env=against_server)
    assert done.returncode == 0, done.stderr
    manifest = Path(done.stdout.rstrip("\n"))
    assert done.stdout == f"{manifest}\n" and manifest.is_file() and manifest.parent == tmp_path / "out"
    lines = done.stderr.splitlines()
    assert lines[-1] == "Completed. 2 of 2 items SUCCESSFUL, 0 FAILED."
    assert lines[0] == "starting Prefect"  # plain lines: standard error is no terminal
    assert any(
        re.fullmatch(r"(running|publishing|done)  2 of 2 items, 0 failed, [\d,.]+ items/s", line) for line in lines
    )
    assert "\x1b" not in done.stderr


def test_run__with_failed_items_exits_1_and_says_why(
    thresher: Any, spec: Any, against_server: dict[str, str], tmp_path: Path
) -> None:
    path = spec()
    (tmp_path / "in" / "3.jpg").write_text("FAIL:404")
    (tmp_path / "elsewhere").mkdir()
    done = thresher("run", path, "--json", "--set", "output_path=other", "--set", "name=renamed", env=against_server)
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert (result["name"], result["successful"], result["failed"]) == ("renamed", 2, 1)
    assert Path(result["manifest"]).parent == tmp_path / "other"
    assert "Completed. 2 of 3 items SUCCESSFUL, 1 FAILED." in done.stderr
    assert "1 x The model answered HTTP 404" in done.stderr
    # No item succeeds: Failed as a whole, the manifest is there all the same.
    done = thresher("run", path, "--set", "input_path=in/3.jpg", env=against_server)
    assert done.returncode == 1
    assert len(Path(done.stdout.strip()).read_text().splitlines()) == 1
    assert "No item succeeded: all 1 failed. 0 of 1 items SUCCESSFUL, 1 FAILED." in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "missing.yaml"], "there is no such file"),
        (["run", "spec.yaml", "--set", "instances=0"], "instances = '0': should be greater than or equal to 1"),
        (["run", "spec.yaml", "--set", "instances"], "should be field=value"),
        (["run", "spec.yaml", "--set", "input_path=nowhere"], "there is no such folder or file"),
        (["run", "spec.yaml", "--nonsense"], "nonsense"),
        (["run"], "SPEC"),
        (["rum"], "rum"),
    ],
)
def test_call__that_is_wrong_exits_2_without_a_trace(
    command: Any, spec: Any, against_server: dict[str, str], arguments: list[str], expected: str
) -> None:
    spec()
    done = command(*arguments, env=against_server)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_run__on_a_terminal_shows_one_live_line(
    thresher: Any, spec: Any, against_server: dict[str, str], tmp_path: Path
) -> None:
    path = spec()
    gate = tmp_path / "gate"
    (tmp_path / "in" / "3.jpg").write_text(f"FAIL:until:{gate}")
    terminal, its_end = pty.openpty()
    environment = thresher.environment({**against_server, "TERM": "xterm", "COLUMNS": "100"})
    process = subprocess.Popen(
        thresher.command(["run", path]), cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=its_end, preexec_fn=die_with_parent,
    )  # fmt: skip
    os.close(its_end)
    shown = b""
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline and select.select([terminal], [], [], 120)[0]:
            try:
                shown += os.read(terminal, 65536)
            except OSError:  # the last one that had it open is gone
                break
            if b"running  2 of 3 items, 0 failed" in shown:
                gate.touch()
        stdout = process.communicate(timeout=180)[0].decode()
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    text = shown.decode()
    assert process.returncode == 0, text
    assert Path(stdout.strip()).is_file()
    assert "running  2 of 3 items, 0 failed" in text and "3 of 3 items" in text
    assert "\x1b[2K" in text  # the line is written anew in its place
    assert "Completed. 3 of 3 items SUCCESSFUL, 0 FAILED." in text


def test_run__retries_the_failed_items_of_a_manifest_and_merges(
    thresher: Any, command: Any, spec: Any, against_server: dict[str, str], tmp_path: Path, write_files: Any
) -> None:
    write_files(tmp_path / "in", {"1.jpg": "one", "2.jpg": "FAIL:404"})
    first = thresher("run", spec(), env=against_server)
    assert first.returncode == 1, first.stderr
    manifest = first.stdout.strip()
    write_files(tmp_path / "in", {"2.jpg": "two"})
    relative = os.path.relpath(manifest, tmp_path)  # taken from the working directory, like every path of a call
    again = thresher("run", spec(), "--retry-failed", relative, "--merge", "--json", env=against_server)
    assert again.returncode == 0, again.stderr
    told = json.loads(again.stdout)
    assert (told["items"], told["successful"], told["failed"]) == (2, 2, 0)
    lines = Path(told["manifest"]).read_text().splitlines()
    assert lines[0] == Path(manifest).read_text().splitlines()[0]
    nothing = command("run", spec(), "--retry-failed", told["manifest"], env=against_server)
    assert (nothing.returncode, nothing.stdout) == (2, "") and "nothing to try again" in nothing.stderr
    alone = command("run", spec(), "--merge", env=against_server)
    assert (alone.returncode, alone.stdout) == (2, "") and "merge" in alone.stderr and "failed_of" in alone.stderr
    seen = command("validate", spec(), "--set", f"failed_of={manifest}", "--json", env=against_server)
    assert json.loads(seen.stdout)["plan"]["items"] == 1, seen.stderr


# -- stopped --------------------------------------------------------------------------------------------------------


@pytest.fixture
def stuck(
    thresher: Any, package: Any, spec: Any, tmp_path: Path, poll: Any, processes_of: Any
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A run on an ephemeral server in the middle of a request that is never answered, and its own TMPDIR.

    The model server has a child in a session of its own.
    """
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    path = spec(
        model=str(package("--spawn-child", "setsid", "--state", str(tmp_path / "state.json"))), model_config=None
    )
    (tmp_path / "in" / "1.jpg").write_text("FAIL:hang")
    process = subprocess.Popen(
        thresher.command(["run", path]), cwd=tmp_path, env=thresher.environment({"TMPDIR": str(tmp)}), text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        preexec_fn=die_with_parent,
    )  # fmt: skip

    def hangs() -> bool:
        assert process.poll() is None, process.communicate()
        state = tmp_path / "state.json"
        return state.exists() and bool(json.loads(state.read_text())["seen"])

    try:
        poll(hangs, "the request that hangs", seconds=120)
        commands = " | ".join(processes_of(tmp).values())
        for part in ("warden.py", "--adopt", "model_server.py", "sleep 3600", "tasks.prefect_side.prefect_app"):
            assert part in commands
        assert list(tmp.glob("thresher-*"))
        yield process, tmp
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["Ctrl-C in the terminal", pytest.param("SIGINT", marks=pytest.mark.soak), "SIGTERM"])
def test_run__that_is_stopped_leaves_nothing_and_exits_1(
    stuck: tuple[subprocess.Popen[str], Path], how: str, processes_of: Any, poll: Any, tmp_path: Path
) -> None:
    process, tmp = stuck
    if how == "Ctrl-C in the terminal":
        os.killpg(process.pid, signal.SIGINT)  # the terminal tells the whole foreground group
    else:
        process.send_signal(signal.SIGINT if how == "SIGINT" else signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=180)
    assert (process.returncode, stdout) == (1, ""), stderr
    assert stderr.splitlines()[-1].startswith(STOPPED)
    assert "Traceback" not in stderr and "Error" not in stderr
    poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
    assert list(tmp.glob("thresher-*")) == []
    assert not list((tmp_path / "out").glob("*.manifest"))


@pytest.mark.slow
def test_run__that_is_killed_leaves_nothing(
    stuck: tuple[subprocess.Popen[str], Path], processes_of: Any, poll: Any
) -> None:
    process, tmp = stuck
    process.kill()
    process.wait()
    poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
    poll(lambda: not list(tmp.glob("thresher-*")), lambda: list(tmp.glob("thresher-*")))


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak), signal.SIGKILL]
)
def test_run__that_is_stopped_while_prefect_starts_leaves_nothing(
    thresher: Any, spec: Any, tmp_path: Path, poll: Any, processes_of: Any, number: signal.Signals
) -> None:
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    # A home of its own: making the server's database takes longer than the test needs.
    environment = thresher.environment({"TMPDIR": str(tmp), "PREFECT_HOME": str(tmp_path / "home")})
    process = subprocess.Popen(
        thresher.command(["run", spec()]), cwd=tmp_path, env=environment, text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip
    try:
        both = {"--adopt", "tasks.prefect_side.prefect_app"}
        poll(lambda: both <= set(" ".join(processes_of(tmp).values()).split()), "the guarded server")
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        if number != signal.SIGKILL:
            stdout, stderr = process.communicate(timeout=180)
            assert (process.returncode, stdout) == (1, "")
            assert stderr.splitlines()[-1].startswith(STOPPED)
            assert "Traceback" not in stderr
        poll(lambda: not processes_of(tmp), lambda: processes_of(tmp))
    finally:
        process.kill()
        process.communicate()


# -- validate -------------------------------------------------------------------------------------------------------


def test_validate__tells_every_problem_at_once(command: Any, spec: Any, tmp_path: Path) -> None:
    path = spec(
        name="bad name!", description="a < b", instances=129, colour="red", input_path="nowhere", resource_pool="moon",
        request_path="/other",
    )  # fmt: skip
    done = command("validate", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "The specification is refused (7 problems):" in done.stderr
    for part in (
        "name = 'bad name!'", "description = 'a < b'", "instances = '129'", "colour = 'red': is not a known field",
        f"input_path = '{tmp_path}/nowhere': there is no such folder or file",
        "resource_pool = 'moon': there is no such resource pool, contact the administrator; there are: ",
        "request_path = '/other': the model answers at: /, /iris, /echo",
    ):  # fmt: skip
        assert part in done.stderr
    assert not (tmp_path / "out").exists()


def test_validate__shows_plan_mapping_and_first_request_of_the_documents_example(command: Any, tmp_path: Path) -> None:
    path = tmp_path / "iris.yaml"
    path.write_text(json.dumps({"model": str(MODELS / "iris"), "input_path": str(MODELS / "iris" / "data"),
                                "output_path": "out"}))  # fmt: skip
    done = command("validate", path)
    assert done.returncode == 0, done.stderr
    assert "1 items, 2,400 bytes, 1 shards" in done.stdout and "150 rows" in done.stdout
    assert '"index": 3' in done.stdout
    assert '{"data":{"req_data":[{"input_1":5.1,"input_2":3.5,"input_3":1.4,"input_4":0.2}]}}' in done.stdout
    found = json.loads(command("validate", path, "--json").stdout)
    leaves = found["mapping"]["properties"]["data"]["properties"]["req_data"]["items"][0]["properties"]
    assert leaves == {f"input_{index + 1}": {"type": "number", "index": index} for index in range(4)}
    assert found["plan"] == {
        "items": 1, "bytes": 2400, "items_of_unknown_size": 0, "rows": 150, "refused_already": 0, "shards": 1
    }  # fmt: skip
    assert found["output_manifest"] == f"{tmp_path}/out/infer-result-{{task_id}}.manifest"
    assert not (tmp_path / "out").exists()


def test_validate__shows_a_json_request_byte_for_byte_as_it_is_sent(
    command: Any,
    run_service: Any,
    spec: Any,
    running: dict[str, str],
    model: FakeModelServer,
    tmp_path: Path,
    write_files: Any,
) -> None:
    write_files(tmp_path / "rows", {"a.csv": '1.50,"say ""hé"", \\ and\nmore"\n'})
    path = spec(input_path="rows", request_path="/echo")
    request = json.loads(command("validate", path, "--json").stdout)["request"]
    assert (request["method"], request["path"], request["content_type"]) == ("POST", "/echo", "application/json")
    assert request["body"] == '{"n":1.50,"text":"say \\"hé\\", \\\\ and\\nmore"}'
    key = item_key(request["body"].encode())
    assert key not in model.stats()["items"]
    assert run_service(input_path=str(tmp_path / "rows"), request_path="/echo", **running).state == "Completed"
    assert model.stats()["items"][key] == 1


def test_validate__shows_a_multipart_request_byte_for_byte_apart_from_its_boundary(
    command: Any, run_service: Any, spec: Any, running: dict[str, str], tmp_path: Path, config: Any, write_files: Any
) -> None:
    write_files(tmp_path / "texts", {'a "汉字".txt': "line one\nline two\r\n"})
    apis = [{"url": "/echo", "request": {"data": {"type": "object", "properties": {"words": {"type": "file"}}}}}]
    fields = {**running, "model_config": json.dumps(config(apis=apis))}
    path = spec(input_path="texts", **fields)
    request = json.loads(command("validate", path, "--json").stdout)["request"]
    assert BOUNDARY.sub("B", request["content_type"]) == "multipart/form-data; boundary=B"
    ran = run_service(input_path=str(tmp_path / "texts"), **fields)
    (line,) = ran.lines
    sent = Path(line["inference-loc"]).read_bytes().decode()  # the fake model sent back what it had received
    assert BOUNDARY.sub("B", request["body"]) == BOUNDARY.sub("B", sent)
    assert 'name="words"; filename="a %22汉字%22.txt"' in sent


# -- models ---------------------------------------------------------------------------------------------------------


def test_models__are_registered_listed_and_only_normal_versions_are_used(
    thresher: Any, command: Any, package: Any, spec: Any, against_server: dict[str, str], tmp_path: Path
) -> None:
    env = {**against_server, "THRESHER_MODEL_STORE": str(tmp_path / "store")}
    assert command("models", "list", env=env).stdout == ""
    good, bad = package(), package("--exit-at-start", "3", folder="bad")
    done = command("models", "register", good, "--name", "fake", env=env)
    assert (done.returncode, done.stdout) == (0, "fake 0.0.1 Normal\n"), done.stderr
    done = command("models", "register", bad, "--name", "fake", "--model-version", "0.0.2", env=env)
    assert (done.returncode, done.stdout) == (1, "fake 0.0.2 Abnormal\n")
    assert "The model server ended with status 3." in done.stderr and "exits at start, as asked" in done.stderr
    done = command("models", "register", good, "--name", "fake", env=env)
    assert (done.returncode, done.stdout) == (2, "") and "fake has this version already" in done.stderr
    (bad / "config.json").write_text('{"model_type": 1}')
    done = command("models", "register", bad, "--name", "other", env=env)
    assert (done.returncode, done.stdout) == (2, "") and "config.json" in done.stderr
    listed = command("models", "list", env=env).stdout.splitlines()
    assert [line.split("\t")[:3] for line in listed] == [["fake", "0.0.2", "Abnormal"], ["fake", "0.0.1", "Normal"]]
    assert "ended with status 3" in listed[0]
    found = json.loads(command("models", "list", "fake", "--json", env=env).stdout)
    assert [one["state"] for one in found] == ["Abnormal", "Normal"]

    path = spec(model="fake", model_config=None)
    for version, said in (
        ("0.0.2", "the version is Abnormal, not Normal: The model server ended"),
        ("9", "no such version"),
    ):
        done = command("validate", path, "--set", f"model_version='{version}'", env=env)
        assert done.returncode == 2 and said in done.stderr
    done = command("validate", path, "--set", "model=nobody", env=env)
    assert done.returncode == 2 and "there are: fake" in done.stderr
    # Without a version the newest one in the Normal state is used, not the newest.
    assert json.loads(command("validate", path, "--json", env=env).stdout)["model"]["version"] == "0.0.1"
    done = thresher("run", path, env=env)
    assert done.returncode == 0, done.stderr
