"""Instances as containers of a model's image: Docker's own client, and an engine whose containers are processes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from clients.support import FAKE_MODEL_SERVER, ROOT, TESTS, processes_with, run
from docker.types import HostConfig, LogConfig
from engine.runs import Shard, local_items, make_run
from fakes.docker_engine import FakeDocker
from fakes.processes import die_with_parent, free_port, poll

from tasks.clients.instances.container_process import OWNER_LABEL
from tasks.clients.instances.launcher import Server
from tasks.clients.instances.model_container import RUN_LABEL, container_launch, container_of
from tasks.domain.errors import ModelServerError
from tasks.domain.pool import Flavor, Pool
from tasks.domain.run import Run

IMAGE = "registry.example.com:5000/team/model:1.0"


def command(*options: str) -> list[str]:
    return ["sh", "-c", f'echo "the image starts"; exec {sys.executable} {FAKE_MODEL_SERVER} {" ".join(options)}']


def run_of(address: str, output: Path, *, image: str = IMAGE, accelerators: int = 0, **pool: Any) -> Run:
    flavor = Flavor(name="f", cpu=1.5, memory_gb=2, accelerators=accelerators)
    made = make_run("/package", str(output), package="/package", health={"period_seconds": 0.2})
    engine = {"address": address, "network": "models"}
    offered = {"name": "d", "kind": "docker", "image": "thresher:1", "flavors": [flavor], "engine": engine, **pool}
    return made.model_copy(
        update={
            "serving": "container", "pool": Pool.model_validate(offered), "flavor": flavor,
            "config": made.config.model_copy(update={"swr_location": image}),
        }
    )  # fmt: skip


@pytest.mark.parametrize("accelerators", [0, 2])
@pytest.mark.parametrize("model_root", [None, "writable"])
def test_container__is_closed_and_of_its_flavors_size(
    tmp_path: Path, accelerators: int, model_root: str | None
) -> None:
    asked = container_of(
        run_of("unix:///run/x.sock", tmp_path, accelerators=accelerators, model_root=model_root), {"A": "b=c"}, 8080
    )
    devices = [{"Count": accelerators, "Capabilities": [["gpu"]]}] if accelerators else []
    by_docker = HostConfig(
        version="1.45", network_mode="models", nano_cpus=1_500_000_000, mem_limit=2 << 30, memswap_limit=2 << 30,
        pids_limit=4096, cap_drop=["ALL"], security_opt=["no-new-privileges:true"], privileged=False,
        read_only=model_root is None, tmpfs={"/tmp": "rw,exec,nosuid,nodev,mode=1777"}, init=True,
        restart_policy={"Name": "no"}, log_config=LogConfig(type="local", config={"max-size": "10m", "max-file": "2"}),
    )  # fmt: skip
    restart = {"Name": "no"}
    by_docker |= {"Privileged": False, "ReadonlyRootfs": model_root is None, "RestartPolicy": restart}
    assert asked["HostConfig"] == {**by_docker, "DeviceRequests": devices}
    assert (asked["Image"], asked["User"]) == (IMAGE, "1000:1000")
    assert {"A=b=c", "PORT=8080", "OMP_NUM_THREADS=1"} <= set(asked["Env"])
    assert not [one for one in asked["Env"] if one.startswith(("PATH=", "THRESHER_", "PREFECT_", "AWS_"))]


def test_run__in_a_container_has_its_results_its_output_and_leaves_nothing(tmp_path: Path) -> None:
    with FakeDocker(tmp_path, {IMAGE: command("--count-items")}) as engine:
        contents = {f"{number:02d}.jpg": b"item %d" % number for number in range(30)}
        shard = Shard(run_of(engine.address, tmp_path / "out"), local_items(tmp_path / "in", contents))
        shard.settings = shard.settings.model_copy(update={"sidecar_port": free_port()})
        shard.infer()
        assert set(shard.messages.values()) == {""}
        assert engine.containers == {}
        assert engine.created[0]["Labels"][RUN_LABEL] == shard.run.task_id
        (printed,) = (tmp_path / "out").glob("*.logs/instance-0.log")
        assert "the image starts" in printed.read_text()


def test_run__whose_container_dies_gets_another_one(tmp_path: Path) -> None:
    with FakeDocker(tmp_path, {IMAGE: command("--state", str(tmp_path / "state"))}) as engine:
        contents = {f"{number:02d}.jpg": b"item %d" % number for number in range(30)} | {"07.jpg": b"FAIL:die:1"}
        shard = Shard(run_of(engine.address, tmp_path / "out"), local_items(tmp_path / "in", contents))
        shard.settings = shard.settings.model_copy(update={"sidecar_port": free_port()})
        shard.infer()
        assert set(shard.messages.values()) == {""}
        assert (len(engine.created), engine.containers) == (2, {})


def outcome(run_: Run, tmp_path: Path) -> str:
    async def work() -> str:
        server = await Server.start(container_launch(run_, {}, free_port()), tmp_path / "instance.log")
        try:
            await server.ready(run_.config.health)
            return ""
        except ModelServerError as error:
            return str(error)
        finally:
            await server.stop()

    return run(work())


def test_container__that_cannot_be_started_says_why(tmp_path: Path) -> None:
    ends = ["sh", "-c", "echo no weights here; exit 9"]
    with FakeDocker(tmp_path, {IMAGE: ends}) as engine:
        said = outcome(run_of(engine.address, tmp_path, image="no/such:1"), tmp_path)
        assert said.endswith("model container: the image no/such:1 cannot be pulled: manifest unknown")
        said = outcome(run_of(engine.address, tmp_path), tmp_path)
        assert said.startswith("The model server ended with status 9. It printed last:")
        assert said.endswith("no weights here")
        assert engine.containers == {}
    said = outcome(run_of(f"tcp://127.0.0.1:{free_port()}", tmp_path), tmp_path)
    assert "model container: Docker at tcp://127.0.0.1:" in said


def hold(address: str, folder: str) -> None:
    """Keep a container running until this process is killed."""

    async def work() -> None:
        launch = container_launch(run_of(address, Path(folder)), {}, free_port())
        await Server.start(launch, Path(folder, "instance.log"))
        await asyncio.sleep(600)

    run(work())


def test_container__is_removed_when_its_runs_process_is_killed_or_its_runs_container_was(tmp_path: Path) -> None:
    with FakeDocker(tmp_path, {IMAGE: command()}) as engine:
        engine.images.add(IMAGE)
        of_a_lost_run = engine.add({"Image": IMAGE, "Labels": {OWNER_LABEL: "0123456789ab"}})
        foreign = engine.add({"Image": IMAGE, "Labels": {}})
        (tmp_path / "held").mkdir()
        code = "import sys; from engine.test_containers import hold; hold(*sys.argv[1:])"
        owner = subprocess.Popen(
            [sys.executable, "-c", code, engine.address, str(tmp_path / "held")], preexec_fn=die_with_parent,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{TESTS}"},
        )  # fmt: skip
        try:
            poll(lambda: [name for name in engine.containers if engine.is_running(name)], "a container")
            assert of_a_lost_run not in engine.containers
        finally:
            owner.kill()
            owner.wait()
        poll(lambda: list(engine.containers) == [foreign], "the end of the container")
        poll(lambda: not processes_with(str(tmp_path / "held")), "the end of its process")
