"""Instances as pods: the flow asks a Kubernetes API for them, and works with what its operator and kubelet start."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.kubernetes import FakeKubernetes
from fakes.processes import meanwhile
from kr8s._api import Api

from tasks.domain.errors import SpecificationError
from tasks.domain.run import RunFailed
from tasks.engine.loop import engine_loop
from tasks.engine.sessions import sessions

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
OWN = "thresher:0.1.0"
MODEL = "registry.example.com/team/model:1.0"
FAKE_MODEL = [sys.executable, str(ROOT / "tests/fakes/model_server.py")]
RULES = [
    rule
    for one in yaml.safe_load_all((ROOT / "infra/kubernetes/instances.yaml").read_text())
    if one["kind"] == "Role"
    for rule in one["rules"]
]
ALL_ENDED = "every pod and every Secret is gone"


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., FakeKubernetes]]:
    """Starts the cluster, to which this process's Kubernetes clients belong then, and tells of its pool."""
    started: list[FakeKubernetes] = []

    def start(model: list[str] | None = None, **options: Any) -> FakeKubernetes:
        folder = tmp_path / "cluster"
        folder.mkdir()
        images = {OWN: [], MODEL: model or [*FAKE_MODEL, "--count-items", "--state", str(folder / "state")]}
        if options.pop("without_images", False):
            images = {OWN: []}
        made = FakeKubernetes(folder, images, options.pop("rules", RULES), **options)
        made.__enter__()
        started.append(made)
        monkeypatch.setenv("KUBECONFIG", made.kubeconfig)
        Api._instances.clear()  # clients are kept by their arguments, which are the same for every cluster here
        return made

    pools = tmp_path / "pools"
    pools.mkdir()
    environment = {"THRESHER_CACHE": os.environ["THRESHER_CACHE"]}
    pool = {
        "name": "pods", "kind": "kubernetes", "image": OWN, "namespace": "thresher", "service_account": "thresher-run",
        "cluster": {"kind": "kubernetes"}, "environment": environment,
        "flavors": [{"name": "small", "cpu": 1, "memory_gb": 1}],
    }  # fmt: skip
    (pools / "pods.yaml").write_text(yaml.safe_dump(pool))
    monkeypatch.setenv("THRESHER_POOLS", str(pools))
    yield start
    for one in started:
        one.__exit__()


@pytest.fixture
def image(tmp_path: Path, config: Any) -> str:
    """A package of type Image without run.sh."""
    home = tmp_path / "package"
    home.mkdir()
    (home / "config.json").write_text(json.dumps(config(swr_location=MODEL)))
    return str(home)


@pytest.fixture
def items(tmp_path: Path, write_files: Any) -> Callable[[int], str]:
    """Writes so many items; the folder."""
    return lambda count: str(write_files(tmp_path / "in", {f"{n:04d}.bin": b"item %d" % n for n in range(count)}))


def made_of(cluster: FakeKubernetes) -> dict[str, Any]:
    """The one DaskCluster that was made."""
    (found,) = [one for one in cluster.seen if one.get("kind") == "DaskCluster"]
    return found


def left(cluster: FakeKubernetes) -> list[Any]:
    return [key for key in cluster.objects if key[0] in ("daskclusters", "pods", "secrets", "services")]


def test_image__runs_beside_each_instance_and_whatever_dies_comes_back_and_no_item_is_lost(
    run_service: Any, cluster: Any, image: str, tmp_path: Path, write_files: Any, prefect_server: str, poll: Any
) -> None:
    from prefect.blocks.system import Secret

    Secret(value="swordfish-4711").save("pods-test", overwrite=True)
    there, gate = cluster(), tmp_path / "gate"
    contents = {f"{n:04d}.bin": f"item {n}" + (f" FAIL:until:{gate}" if n >= 40 else "") for n in range(80)}
    folder = write_files(tmp_path / "in", contents | {"0007.bin": "FAIL:die"})

    def kill() -> None:
        try:
            poll(lambda: len(there.containers("worker")) == 2, "two workers", 240)
            poll(lambda: _served(there) > 20, "the first answers", 240)
            worker = there.containers("worker")[0]
            assert worker.process is not None
            os.kill(worker.process.pid, signal.SIGKILL)
            poll(lambda: worker.starts > 1, "the worker to come back", 240)
        finally:
            gate.touch()

    with meanwhile(kill):
        ran = run_service(
            model=image, input_path=str(folder), request_path="/", instances=2, resource_pool="pods",
            environment={"GREETING": "hello", "API_TOKEN": "{{ prefect.blocks.secret.pods-test }}"},
        )  # fmt: skip
    assert ran.state == "Completed", ran.error
    assert len(ran.lines) == 80
    assert ran.messages.pop("0007.bin") == "model server died 3 times on this item"
    assert {said for name, said in ran.messages.items() if name != "0007.bin"} == {"SUCCESSFUL"}
    poll(lambda: not left(there), ALL_ENDED)
    assert ran.summary["model"]["serving"] == "sidecar"
    assert any("container `model`" in line for line in ran.logs)
    assert made_of(there)["spec"]["worker"]["replicas"] == 2
    # Secrets stand in the run's Secret only.
    (secret,) = [one for one in there.seen if one.get("kind") == "Secret"]
    assert {"model.API_TOKEN", "model.GREETING", "worker.PREFECT_API_URL"} <= set(secret["data"])
    others = json.dumps([one for one in there.seen if one.get("kind") != "Secret"])
    assert "swordfish" not in others and prefect_server not in others
    assert "swordfish" not in " ".join(ran.logs)


def test_package__is_served_within_its_worker_pod_also_as_the_only_instance(
    run_service: Any, cluster: Any, package: Any, items: Any, poll: Any
) -> None:
    there = cluster()
    home = str(package(script=f"exec {' '.join(FAKE_MODEL)}\n"))
    ran = run_service(model=home, input_path=items(20), request_path="/", resource_pool="pods")
    assert ran.state == "Completed", ran.error
    assert set(ran.messages.values()) == {"SUCCESSFUL"}
    assert [one["name"] for one in made_of(there)["spec"]["worker"]["spec"]["containers"]] == ["worker"]
    poll(lambda: not left(there), ALL_ENDED)


def _served(there: FakeKubernetes) -> int:
    import requests

    count = 0
    for pod in list(there.pods.values()):
        if 8080 in pod.ports:
            try:
                stats = requests.get(f"http://127.0.0.1:{pod.ports[8080]}/stats", timeout=2).json()
                count += stats["requests"].get("/", 0)
            except requests.RequestException:
                pass
    return count


def test_run__without_the_operator_fails_with_a_message_and_leaves_nothing(
    run_service: Any, cluster: Any, image: str, items: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = cluster(operator=False)
    monkeypatch.setattr("tasks.clients.cluster.pod_cluster.OPERATOR_SECONDS", 1.0)
    ran = run_service(model=image, input_path=items(3), request_path="/", resource_pool="pods")
    assert ran.state == "Failed"
    assert isinstance(ran.error, RunFailed)
    assert len(ran.messages) == 3 and all(said.startswith("Not processed: ") for said in ran.messages.values())
    assert re.search(r"not taken up within 1 s: is Dask's operator .* running", str(ran.error))
    assert left(there) == []


def test_run__says_what_keeps_its_pods_from_running_and_stopped_then_leaves_nothing(
    run_service: Any, cluster: Any, image: str, items: Any, poll: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.clients.cluster.pod_cluster.LOOK_SECONDS", 0.2)
    there = cluster(without_images=True)

    def stop() -> None:
        made = poll(lambda: there.seen, "the DaskCluster", 240)[0]
        poll(lambda: [one for (kind, _), one in there.objects.items() if kind == "pods" and _waits(one)], "a pull", 240)
        before = there.requests.count(("list", "pods"))
        poll(lambda: there.requests.count(("list", "pods")) > before + 6, "looks at the pods", 240)
        asyncio.run(engine_loop().run(sessions.halt(made["metadata"]["labels"]["thresher/run"])))

    with meanwhile(stop):
        ran = run_service(model=image, input_path=items(3), request_path="/", resource_pool="pods", instances=2)
    assert ran.state == "Cancelled", ran.error
    assert [*ran.messages.values()] == ["The run was stopped before it was processed."] * 3
    assert any(f"container model of {MODEL}: ImagePullBackOff (2 pods)" in line for line in ran.logs), ran.logs
    assert left(there) == []


def _waits(pod: dict[str, Any]) -> bool:
    return "ImagePullBackOff" in json.dumps(pod.get("status", {}))


def test_run__whose_account_may_not_make_pods_says_so(run_service: Any, cluster: Any, image: str, items: Any) -> None:
    there = cluster(rules=[rule for rule in RULES if "secrets" not in rule["resources"]])
    ran = run_service(model=image, input_path=items(3), request_path="/", resource_pool="pods")
    assert ran.state == "Failed"
    assert "service account thresher-run of the resource pool pods may not make the pods" in str(ran.error)
    assert left(there) == []


def test_image__without_run_sh_is_refused_on_other_pools(run_service: Any, image: str, items: Any) -> None:
    ran = run_service(model=image, input_path=items(1), request_path="/")
    assert isinstance(ran.error, SpecificationError)
    assert "on pools whose instances are pods (cluster.kind kubernetes)" in str(ran.error)
