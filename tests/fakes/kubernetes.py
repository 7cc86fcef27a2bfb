"""A Kubernetes API server with Dask's operator and a kubelet, on one machine: containers are plain processes.

Requests are checked first: whether the role allows them, DaskClusters against the schema that the operator ships, and
the Deployments that the operator's own functions derive from them against Kubernetes' schemas. An image is a command in
`images`; that of the project is its own `dask`. Pods have no network of their own, so the fixed ports of a manifest
(8080, 8786, 8787, 8788) become free ones, and the scheduler's service is reported as one with an address.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from subprocess import Popen
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonschema
import kubernetes_validate
import requests
import yaml
from fakes import processes

ROOT = Path(__file__).parents[2]
TOKEN = "of-the-flow"
Object = dict[str, Any]
_PATH = re.compile(r"/(?:api|apis/([\w.-]+))/(v1)/namespaces/([\w-]+)/(\w+)(?:/([\w.-]+))?\Z")
_VERBS = {"POST": "create", "DELETE": "delete", "PATCH": "patch"}
HOST = "127.0.0.1"
DISCOVERED: dict[str, Object] = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/api/v1": {"groupVersion": "v1", "resources": [
        {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"]}
    ]},
    "/apis": {"kind": "APIGroupList", "groups": []},
}  # fmt: skip


@cache
def crd_schema() -> Object:
    """The schema of a DaskCluster, as the operator's chart installs it."""
    chart = files("dask_kubernetes") / "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    (version,) = yaml.safe_load(chart.read_text())["spec"]["versions"]
    found: Object = version["schema"]["openAPIV3Schema"]
    return found


def deployments(cluster: Object) -> list[Object]:
    """The Deployments that the operator's own functions derive from a DaskCluster: scheduler first, then workers."""
    from dask_kubernetes.operator.controller.controller import (
        build_scheduler_deployment_spec,
        build_worker_deployment_spec,
    )

    meta, spec = cluster["metadata"], cluster["spec"]
    common = (meta.get("annotations", {}), meta.get("labels", {}))
    made = [build_scheduler_deployment_spec(meta["name"], spec["scheduler"]["spec"], *common)]
    for number in range(spec["worker"]["replicas"]):
        group = f"{meta['name']}-default"
        pod = spec["worker"]["spec"]
        made.append(
            build_worker_deployment_spec(group, meta["namespace"], meta["name"], f"{number:010d}", pod, *common)
        )
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]  # they share parts


def problems(cluster: Object) -> str:
    """The first problem of a DaskCluster; empty if it is valid."""
    try:
        jsonschema.validate(cluster, crd_schema())
        for one in deployments(cluster):
            kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)
    except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
        return str(error).split("\n", 1)[0]
    return ""


@dataclass
class Container:
    """A container of a pod, and its current process."""

    spec: Object
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: Popen[bytes] | None = None
    waits_for: str = "ContainerCreating"
    starts: int = 0
    held: bool = False
    """While set, it is not restarted."""


@dataclass
class PodOf:
    """A pod and its containers, by name."""

    manifest: Object
    ports: dict[int, int]
    containers: dict[str, Container] = field(default_factory=dict)


class FakeKubernetes:
    """The cluster; ready within `with`. `rules` are those of its client's role."""

    def __init__(
        self, folder: Path, images: Mapping[str, Sequence[str]], rules: Sequence[Object], *, operator: bool = True
    ) -> None:
        self.objects: dict[tuple[str, str], Object] = {}
        self.requests: list[tuple[str, str]] = []
        self.seen: list[Object] = []
        """Everything that was ever created."""
        self.pods: dict[str, PodOf] = {}
        self._folder = folder
        self._images = images
        self._rules = rules
        self._operator = operator
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._logs = itertools.count()
        self._server = ThreadingHTTPServer((HOST, 0), _handler(self))
        self._threads = [
            threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}),
            threading.Thread(target=self._kubelet),
        ]

    def __enter__(self) -> FakeKubernetes:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()
        for pod in self.pods.values():
            self._stop(pod)

    @property
    def kubeconfig(self) -> str:
        """The path of a file that gives a client access."""
        path = self._folder / "kubeconfig"
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "it",
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "flow"}}],
                    "clusters": [{"name": "it", "cluster": {"server": f"http://{HOST}:{self._server.server_port}"}}],
                    "users": [{"name": "flow", "user": {"token": TOKEN}}],
                }
            )
        )  # fmt: skip
        return str(path)

    # -- the API ----------------------------------------------------------------------------------------------------

    def answer(self, method: str, address: str, token: str, body: bytes) -> tuple[int, Object]:
        """Status and body of the response to a request."""
        url = urlsplit(address)
        path = url.path.rstrip("/")
        if path == "/version":
            return 200, {"gitVersion": "v1.33.0", "major": "1", "minor": "33"}
        if path in DISCOVERED:
            return 200, DISCOVERED[path]
        if token != f"Bearer {TOKEN}":
            return 401, _status("Unauthorized")
        found = _PATH.match(path)
        if found is None:
            return 404, _status("the server could not find the requested resource")
        group, _, namespace, kind, name = found.groups()
        verb = _VERBS.get(method) or ("get" if name else "list")
        if not any(
            (group or "") in rule["apiGroups"] and kind in rule["resources"] and verb in rule["verbs"]
            for rule in self._rules
        ):
            return 403, _status(f'User "flow" cannot {verb} resource "{kind}" in namespace "{namespace}"')
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        with self._lock:
            self.requests.append((verb, kind))
            if verb == "create":
                return self._create(kind, namespace, json.loads(body))
            if verb == "list":
                return 200, {"kind": "List", "metadata": {}, "items": list(self._listed(kind, query))}
            if (kind, name) not in self.objects:
                return 404, _status(f'{kind} "{name}" not found')
            if verb == "delete":
                self._delete(kind, name)
                return 200, {"kind": "Status", "status": "Success", "metadata": {}}
            return 200, self.objects[kind, name]

    def _create(self, kind: str, namespace: str, made: Object) -> tuple[int, Object]:
        name = made["metadata"]["name"]
        if (kind, name) in self.objects:
            return 409, _status(f'{kind} "{name}" already exists')
        if kind == "daskclusters" and (wrong := problems(made)):
            return 422, _status(f'DaskCluster "{name}" is invalid: {wrong}')
        if kind == "secrets":
            kubernetes_validate.validate(made, kubernetes_validate.latest_version(), strict=True)
        self._keep(kind, namespace, made)
        return 201, made

    def _keep(self, kind: str, namespace: str, made: Object) -> None:
        made["metadata"] |= {"uid": str(uuid.uuid4()), "namespace": namespace}
        self.seen.append(json.loads(json.dumps(made)))
        self.objects[kind, made["metadata"]["name"]] = made

    def _listed(self, kind: str, query: Mapping[str, str]) -> Iterator[Object]:
        labels = dict(one.split("=", 1) for one in query.get("labelSelector", "").split(",") if one)
        fields = dict(one.split("=", 1) for one in query.get("fieldSelector", "").split(",") if one)
        for (of, name), one in self.objects.items():
            seen = {"metadata.name": name, "status.phase": one.get("status", {}).get("phase")}
            if (
                of == kind
                and labels.items() <= one["metadata"].get("labels", {}).items()
                and fields.items() <= seen.items()
            ):
                yield one

    def _delete(self, kind: str, name: str) -> None:
        uid = self.objects.pop((kind, name))["metadata"]["uid"]
        if name in self.pods and kind == "pods":
            self._stop(self.pods.pop(name))
        owned = [
            key
            for key, one in self.objects.items()
            if any(owner["uid"] == uid for owner in one["metadata"].get("ownerReferences", []))
        ]
        for key in owned:
            self._delete(*key)

    # -- operator and kubelet -----------------------------------------------------------------------------------------

    def _kubelet(self) -> None:
        while not self._over.wait(0.1):
            with self._lock:
                for cluster in [one for (kind, _), one in self.objects.items() if kind == "daskclusters"]:
                    if self._operator and "status" not in cluster:
                        self._take_up(cluster)
                for name, pod in self.pods.items():
                    self._keep_running(pod)
                    self.objects["pods", name]["status"] = _status_of(pod)

    def _take_up(self, cluster: Object) -> None:
        cluster["status"] = {"phase": "Running"}
        name, namespace = cluster["metadata"]["name"], cluster["metadata"]["namespace"]
        owner = {"ownerReferences": [{"uid": cluster["metadata"]["uid"]}]}
        scheduler, *workers = deployments(cluster)
        ports = {8786: processes.free_port(), 8787: processes.free_port()}
        service = cluster["spec"]["scheduler"]["service"]
        self._keep(
            "services",
            namespace,
            {
                "metadata": {"name": f"{name}-scheduler", **owner},
                "spec": {
                    **service,
                    "type": "LoadBalancer",
                    "ports": [{**port, "port": ports[port["port"]]} for port in service["ports"]],
                },
                "status": {"loadBalancer": {"ingress": [{"ip": HOST}]}},
            },
        )
        self._place(scheduler, owner, ports, {})
        for worker in workers:
            own = {8080: processes.free_port(), 8788: processes.free_port()}
            told = {
                "DASK_SCHEDULER_ADDRESS": f"tcp://{HOST}:{ports[8786]}", "THRESHER_SIDECAR_PORT": str(own[8080]),
            }  # fmt: skip
            self._place(worker, owner, own, told)

    def _place(self, deployment: Object, owner: Object, ports: dict[int, int], told: Mapping[str, str]) -> None:
        template = deployment["spec"]["template"]
        manifest = {"metadata": {**template["metadata"], **owner}, "spec": template["spec"]}
        self._keep("pods", deployment["metadata"].get("namespace", "thresher"), manifest)
        pod = self.pods[manifest["metadata"]["name"]] = PodOf(manifest, ports)
        for spec in template["spec"]["containers"]:
            log = self._folder / f"container-{next(self._logs)}-{spec['name']}.log"
            pod.containers[spec["name"]] = Container(spec, [], dict(told), log)

    def _keep_running(self, pod: PodOf) -> None:
        for name, container in pod.containers.items():
            if container.held or (container.process is not None and container.process.poll() is None):
                continue
            environment = self._environment(container.spec)
            if environment is None or container.spec["image"] not in self._images:
                container.waits_for = "CreateContainerConfigError" if environment is None else "ImagePullBackOff"
                continue
            environment |= container.environment
            if name == "model":
                environment["PORT"] = str(pod.ports[8080])
            expanded = [_expanded(text, environment) for text in container.spec.get("args", ())]
            command = [*self._images[container.spec["image"]], *_on_one_machine(name, expanded, pod.ports)]
            container.process = processes.start(command, container.log, environment)
            container.starts += 1

    def _environment(self, spec: Object) -> dict[str, str] | None:
        """The environment of a container, on top of its image's; None while a Secret is missing."""
        found = {name: os.environ[name] for name in ("TMPDIR", "HOME") if name in os.environ}
        found |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": processes.PYTHONPATH}
        for one in spec.get("env", ()):
            if "value" in one:
                found[one["name"]] = _expanded(one["value"], found)
                continue
            ref = one["valueFrom"]["secretKeyRef"]
            secret = self.objects.get(("secrets", ref["name"]))
            if secret is None:
                return None
            found[one["name"]] = base64.b64decode(secret["data"][ref["key"]]).decode()
        return found

    def containers(self, name: str) -> list[Container]:
        """The containers of this name, of all pods."""
        with self._lock:
            return [one for pod in self.pods.values() for of, one in pod.containers.items() if of == name]

    @staticmethod
    def _stop(pod: PodOf) -> None:
        for container in pod.containers.values():
            container.held = True
            if container.process is not None:
                processes.stop(container.process, 20)


def _on_one_machine(name: str, arguments: list[str], ports: Mapping[int, int]) -> list[str]:
    """The arguments of a container, with its ports replaced, and listening on this machine only."""
    if name == "scheduler":
        there = {"0.0.0.0": HOST, "8786": str(ports[8786])}
        return [*(there.get(one, one) for one in arguments), "--dashboard-address", f"{HOST}:{ports[8787]}"]
    if name == "worker":
        return [*({"8788": f"{HOST}:{ports[8788]}"}.get(one, one) for one in arguments), "--host", HOST]
    return arguments


def _expanded(text: str, environment: Mapping[str, str]) -> str:
    reference = r"\$(\$\([^)]*\))|\$\((\w+)\)"
    return re.sub(reference, lambda found: found[1] or environment.get(found[2], found[0]), text)


def _status_of(pod: PodOf) -> Object:
    """What the kubelet reports: the pod runs when all its containers run, and is ready when its probe succeeds."""
    statuses = []
    for name, container in pod.containers.items():
        runs = container.process is not None and container.process.poll() is None
        waiting = container.waits_for if container.process is None else "CrashLoopBackOff"
        state = {"running": {}} if runs else {"waiting": {"reason": waiting}}
        image = container.spec["image"]
        statuses.append({"name": name, "image": image, "state": state, "restartCount": max(0, container.starts - 1)})
    running = all("running" in one["state"] for one in statuses)
    ready = running
    if running and "scheduler" in pod.containers:
        ready = False
        with contextlib.suppress(requests.RequestException):
            probe = pod.containers["scheduler"].spec["readinessProbe"]["httpGet"]["path"]
            ready = requests.get(f"http://{HOST}:{pod.ports[8787]}{probe}", timeout=2).ok
    said = "True" if ready else "False"
    conditions = [{"type": "Ready", "status": said}, {"type": "ContainersReady", "status": said}]
    return {"phase": "Running" if running else "Pending", "conditions": conditions, "containerStatuses": statuses}


def _status(message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message}


def _handler(owner: FakeKubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, answer = owner.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_DELETE = do_PATCH = do_GET

    return Handler
