"""The commands of a service's life against real servers: exit codes, output for people and for programs, logs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from fakes import processes

from deployments import overview

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(stack: Any, thresher: Command) -> Command:
    """Runs the real command against the stack."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        ran = thresher(*arguments, env=stack.environment)
        assert "Traceback" not in ran.stderr
        return ran

    return run


def test_commands__from_deploy_to_delete(stack, command, fields, name, tmp_path, write_files):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields({"a.bin": b"a"}, description="by command")))
    ran = command("deploy", spec, "--wait")
    service = overview.show(name)
    assert (ran.returncode, ran.stdout) == (0, f"{service.last_run.manifest}\n"), ran.stderr
    assert f"Created {name}" in ran.stderr

    ran = command("deploy", spec)
    assert (ran.returncode, ran.stdout) == (2, "") and "a service of this name exists" in ran.stderr

    write_files(tmp_path / "sick", {"a.bin": b"a", "b.bin": b"FAIL:404"})
    ran = command("start", name, "--set", f"input_path={tmp_path}/sick", "--wait", "--json")
    told = json.loads(ran.stdout)
    assert ran.returncode == 1, ran.stderr
    assert (told["last_run"]["items"], told["last_run"]["failed"], told["status"]) == (2, 1, "Completed")

    ran = command("start", name, "--set", "instances=0")
    assert (ran.returncode, ran.stdout) == (2, "") and "instances" in ran.stderr

    ran = command("list", "--json")
    assert ran.returncode == 0 and name in [one["name"] for one in json.loads(ran.stdout)]
    ran = command("show", name, "--runs", "--json")
    assert [one["failed"] for one in json.loads(ran.stdout)] == [1, 0]
    ran = command("edit", name, "--description", "new words", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["description"] == "new words"
    ran = command("show", name)
    assert ran.returncode == 0 and "new words" in ran.stdout and name in ran.stdout
    ran = command("edit", name, "--description", "x" * 101)
    assert (ran.returncode, ran.stdout) == (2, "") and "description" in ran.stderr
    ran = command("stop", name)
    assert (ran.returncode, ran.stdout) == (2, "") and "no run that could be stopped" in ran.stderr
    ran = command("schedule", name, "--cron", "0 2 * * *", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["schedule"] == "0 2 * * *"
    ran = command("delete", name)
    assert (ran.returncode, ran.stdout) == (0, "") and f"Deleted {name}" in ran.stderr
    ran = command("show", name)
    assert (ran.returncode, ran.stdout) == (2, "") and "there is no such service" in ran.stderr


def test_logs__of_a_run_that_goes_on_are_followed_to_its_end(stack, command, thresher, fields, name, tmp_path):
    gate = tmp_path / "gate"
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields({"a.bin": f"FAIL:until:{gate} "})))
    ran = command("deploy", spec, "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["status"] == "Deploying", ran.stderr
    log = tmp_path / "followed.log"
    follower = processes.start(
        thresher.command(("logs", name, "--follow")), log, thresher.environment(stack.environment)
    )
    try:
        stack.until(name, "Running")
        processes.poll(lambda: log.read_text(), lambda: stack.told(name))
        assert follower.poll() is None
        gate.touch()
        stack.completed(name)
        assert follower.wait(180) == 0
    finally:
        processes.stop(follower)
    ran = command("logs", name)
    assert ran.returncode == 0 and "Traceback" not in ran.stdout
    assert sorted(log.read_text().splitlines()) == sorted(ran.stdout.splitlines())
    lines = [json.loads(line) for line in command("logs", name, "--json").stdout.splitlines()]
    assert [one["message"] for one in lines] and set(lines[0]) == {"time", "level", "message"}
    assert command("logs", name, "--run", "nonsense").returncode == 2
