"""The commands of a service's life against real servers: exit codes, output for people and for programs, logs."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import yaml
from fakes import processes

from deployments.services import overview

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(stack: Any, thresher: Command) -> Command:
    """Runs the real command against the stack."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        ran = thresher(*arguments, env=stack.environment)
        assert "Traceback" not in ran.stderr
        return ran

    return run


def test_commands__from_deploy_to_delete(stack, command, command_here, fields, name, tmp_path, write_files):
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields({"a.bin": b"a"}, description="by command")))
    ran = command("deploy", spec, "--wait")
    service = overview.show(name)
    assert (ran.returncode, ran.stdout) == (0, f"{service.last_run.manifest}\n"), ran.stderr
    assert f"Created {name}" in ran.stderr

    ran = command_here("deploy", spec)
    assert (ran.returncode, ran.stdout) == (2, "") and "a service of this name exists" in ran.stderr

    write_files(tmp_path / "sick", {"a.bin": b"a", "b.bin": b"FAIL:404"})
    ran = command("start", name, "--set", f"input_path={tmp_path}/sick", "--wait", "--json")
    told = json.loads(ran.stdout)
    assert ran.returncode == 1, ran.stderr
    assert (told["last_run"]["items"], told["last_run"]["failed"], told["status"]) == (2, 1, "Completed")

    ran = command_here("start", name, "--set", "instances=0")
    assert (ran.returncode, ran.stdout) == (2, "") and "instances" in ran.stderr

    ran = command_here("list", "--json")
    assert ran.returncode == 0 and name in [one["name"] for one in json.loads(ran.stdout)]
    ran = command_here("show", name, "--runs", "--json")
    assert [one["failed"] for one in json.loads(ran.stdout)] == [1, 0]
    ran = command_here("edit", name, "--description", "new words", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["description"] == "new words"
    ran = command_here("show", name)
    assert ran.returncode == 0 and "new words" in ran.stdout and name in ran.stdout
    ran = command_here("edit", name, "--description", "x" * 101)
    assert (ran.returncode, ran.stdout) == (2, "") and "description" in ran.stderr
    ran = command_here("stop", name)
    assert (ran.returncode, ran.stdout) == (2, "") and "no run that could be stopped" in ran.stderr
    ran = command_here("schedule", name, "--cron", "0 2 * * *", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["schedule"] == "0 2 * * *"
    ran = command_here("delete", name)
    assert (ran.returncode, ran.stdout) == (0, "") and f"Deleted {name}" in ran.stderr
    ran = command_here("show", name)
    assert (ran.returncode, ran.stdout) == (2, "") and "there is no such service" in ran.stderr

    ran = command_here("deploy", spec, "--set", "resource_pool=unattended", "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["status"] == "Deploying", ran.stderr
    assert "No worker of unattended is running; the run waits for one." in ran.stderr


def test_wait_and_logs__of_a_run_that_goes_on(stack, command_here, thresher, fields, name, tmp_path):
    """A command that waits may be interrupted, one that follows the log ends with the run."""
    gate = tmp_path / "gate"
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(fields({"a.bin": f"FAIL:until:{gate} "})))
    said, log = tmp_path / "said", tmp_path / "followed.log"

    def begun(output, *arguments):
        return processes.start(thresher.command(arguments), output, thresher.environment(stack.environment))

    with ExitStack() as block:
        waiting = begun(said, "deploy", spec, "--wait")
        block.callback(processes.stop, waiting)
        processes.poll(lambda: f"Created {name}" in said.read_text(), said.read_text)
        follower = begun(log, "logs", name, "--follow")
        block.callback(processes.stop, follower)
        stack.until(name, "Running")
        processes.poll(lambda: log.read_text(), lambda: stack.told(name))
        waiting.terminate()
        assert waiting.wait(180) == 1 and follower.poll() is None
        assert f"thresher stop {name}" in said.read_text().replace("\n", " ") and "Traceback" not in said.read_text()
        gate.touch()
        stack.completed(name)
        assert follower.wait(180) == 0
    ran = command_here("logs", name)
    assert ran.returncode == 0 and "Traceback" not in ran.stdout
    assert sorted(log.read_text().splitlines()) == sorted(ran.stdout.splitlines())
    lines = [json.loads(line) for line in command_here("logs", name, "--json").stdout.splitlines()]
    assert [one["message"] for one in lines] and set(lines[0]) == {"time", "level", "message"}
    assert command_here("logs", name, "--run", "nonsense").returncode == 2
