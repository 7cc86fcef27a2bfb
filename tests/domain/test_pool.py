"""Resource pools and their flavors."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.domain.package import PackageConfig
from tasks.domain.pool import Flavor, Pool

SMALL = {"name": "cpu-2", "cpu": 2, "memory_gb": 4}
LARGE = {"name": "cpu-8", "cpu": 8, "memory_gb": 32}
GPU = {"name": "gpu-1", "cpu": 4, "memory_gb": 16, "accelerators": 1, "price_per_hour": 2.5}
POOL = Pool.model_validate({"name": "public", "flavors": [SMALL, LARGE, GPU]})


def names(config: dict[str, Any] | None) -> list[str]:
    wanted = None if config is None else PackageConfig.model_validate({"model_type": "Custom", **config})
    return [flavor.name for flavor in POOL.flavors_for(wanted)]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (None, ["cpu-2", "cpu-8", "gpu-1"]),
        ({}, ["cpu-2", "cpu-8", "gpu-1"]),
        ({"accelerators": 1}, ["gpu-1"]),
        ({"accelerators": "1"}, ["gpu-1"]),
        ({"accelerators": 2}, []),
        ({"min_cpu": 4}, ["cpu-8", "gpu-1"]),
        ({"min_cpu": 2.0}, ["cpu-2", "cpu-8", "gpu-1"]),
        ({"min_memory_gb": 17}, ["cpu-8"]),
        ({"min_cpu": 4, "min_memory_gb": 17, "accelerators": 1}, []),
        ({"min_cpu": "many", "accelerators": None, "min_memory_gb": []}, ["cpu-2", "cpu-8", "gpu-1"]),
    ],
)
def test_pool__offers_the_flavors_that_satisfy_a_model_in_its_order(
    config: dict[str, Any] | None, expected: list[str]
) -> None:
    assert names(config) == expected


CUDA = "pytorch_1.8.0-cuda_10.2-py_3.7-ubuntu_18.04-x86_64"
CPUS = Pool.model_validate({"name": "cpus", "flavors": [SMALL, LARGE]})


@pytest.mark.parametrize(
    ("pool", "config", "expected"),
    [
        (POOL, {}, "cpu-2"),
        (POOL, {"runtime": "python3.7"}, "cpu-2"),
        (POOL, {"runtime": "tf1.13-python3.7-cpu"}, "cpu-2"),
        (POOL, {"runtime": "tf1.13-python3.7-gpu"}, "gpu-1"),
        (POOL, {"runtime": CUDA}, "gpu-1"),
        (POOL, {"runtime": CUDA, "min_memory_gb": 17}, "cpu-8"),
        (POOL, {"accelerators": 1}, "gpu-1"),
        (CPUS, {"runtime": CUDA}, "cpu-2"),
        (CPUS, {"runtime": CUDA, "min_cpu": 4}, "cpu-8"),
        (CPUS, {"accelerators": 1}, None),
    ],
)
def test_pool__prefers_accelerators_for_a_runtime_that_is_made_for_them(
    pool: Pool, config: dict[str, Any], expected: str | None
) -> None:
    flavor = pool.default_flavor(PackageConfig.model_validate({"model_type": "PyTorch", **config}))
    assert (flavor and flavor.name) == expected


def test_pool__warns_of_a_runtime_whose_accelerator_is_not_there() -> None:
    config = PackageConfig.model_validate({"model_type": "PyTorch", "runtime": "cuda"})
    small, gpu = POOL.flavors[0], POOL.flavors[2]
    assert "cpu-2 has none; flavors of public with some: gpu-1." in POOL.without_accelerator(config, small)
    assert "cpu-2 has none, nor has any other of cpus." in CPUS.without_accelerator(config, small)
    assert POOL.without_accelerator(config, gpu) == ""
    assert POOL.without_accelerator(None, small) == ""
    assert POOL.without_accelerator(PackageConfig(model_type="PyTorch"), small) == ""


def test_pool__finds_a_flavor_by_its_name() -> None:
    assert POOL.flavor("cpu-8") == Flavor.model_validate(LARGE)
    assert POOL.flavor("cpu-9") is None


def test_pool__has_defaults() -> None:
    assert (POOL.kind, POOL.access, POOL.contact, POOL.max_runs) == ("process", "public", "the administrator", None)
    flavor = Flavor.model_validate(SMALL)
    assert (flavor.accelerators, flavor.price_per_hour) == (0, None)


@pytest.mark.parametrize(
    "pool",
    [
        {"name": "p", "flavors": []}, {"name": "p"}, {"flavors": [SMALL]}, {"name": "p q", "flavors": [SMALL]},
        {"name": "p\n", "flavors": [SMALL]}, {"name": "", "flavors": [SMALL]}, {"name": "p" * 65, "flavors": [SMALL]},
        {"name": "p", "flavors": [SMALL], "kind": "cloud"}, {"name": "p", "flavors": [SMALL], "access": "mine"},
        {"name": "p", "flavors": [SMALL], "max_runs": 0}, {"name": "p", "flavors": [SMALL], "colour": "red"},
        {"name": "p", "flavors": [{**SMALL, "cpu": 0}]}, {"name": "p", "flavors": [{**SMALL, "memory_gb": -1}]},
        {"name": "p", "flavors": [{**SMALL, "accelerators": -1}]}, {"name": "p", "flavors": [{**SMALL, "name": "a b"}]},
        {"name": "p", "flavors": [{**SMALL, "price_per_hour": -1}]}, {"name": "p", "flavors": [{**SMALL, "gpu": 1}]},
    ],
)  # fmt: skip
def test_pool__refuses_what_is_no_pool(pool: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Pool.model_validate(pool)


def test_pool__json_and_back_is_the_same_pool() -> None:
    assert Pool.model_validate_json(POOL.model_dump_json()) == POOL


CONTAINER = {"name": "p", "image": "thresher:1", "flavors": [{"name": "f", "cpu": 1, "memory_gb": 1}]}
PODS = {"kind": "kubernetes", "service_account": "a", "cluster": {"kind": "kubernetes"}}


def test_pool__takes_a_scheduler_with_tls_or_one_without_that_it_allows() -> None:
    files = {name: f"/{name}" for name in ("ca_file", "certificate_file", "key_file")}
    for cluster in (
        {"address": "tls://a:1"},
        {"address": "wss://a:1", **files},
        {"address": "tcp://a:1", "insecure_scheduler": "allow"},
        {"address": "tcp://127.0.0.1:1"},
        {"address": "tcp://127.1.2.3:1", "insecure_scheduler": "loopback"},
        {"address": "tcp://[::1]:1"},
        {"address": "tcp://localhost:1"},
    ):
        given = CONTAINER | {"kind": "docker", "cluster": {"kind": "scheduler", **cluster}}
        assert Pool.model_validate(given).cluster.encrypted is not cluster["address"].startswith("tcp")


def test_pool__makes_pods_only_if_its_cluster_says_so() -> None:
    assert Pool.model_validate(CONTAINER | PODS).makes_pods
    assert not Pool.model_validate(CONTAINER | {"kind": "kubernetes"}).makes_pods and not POOL.makes_pods


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"kind": "docker", "image": None}, "image is needed: a run of a docker pool is a container"),
        ({"kind": "kubernetes", "image": None}, "image is needed: a run of a kubernetes pool is a container"),
        ({"kind": "process"}, "image is for docker and kubernetes pools only, this one's kind is process"),
        ({"kind": "docker", "namespace": "n"}, "namespace is for kubernetes pools only, this one's kind is docker"),
        ({"kind": "kubernetes", "volumes": ["a:b"]}, "volumes is for docker pools only"),
        ({"kind": "docker", "environment": {"MY_TOKEN": "x"}}, "should hold no secret (MY_TOKEN)"),
        ({"environment": {"THRESHER_S3_CREDENTIALS": "x"}}, "should hold no secret (THRESHER_S3_CREDENTIALS)"),
        ({**PODS, "image": None}, "image is needed: a run of a kubernetes pool is a container"),
        ({**PODS, "kind": "docker"}, "cluster.kind kubernetes is for kubernetes pools only, this one's kind is docker"),
        ({**PODS, "kind": "process"}, "kubernetes is for kubernetes pools only, this one's kind is process"),
        ({**PODS, "service_account": None}, "service_account is needed with cluster.kind kubernetes"),
        ({**PODS, "cluster": {"kind": "kubernetes", "address": "tcp://a:1"}}, "address is needed for kind scheduler"),
        *(
            (
                {"kind": "docker", "cluster": {"kind": "scheduler", "address": address}},
                f"address {address} has no TLS",
            )
            for address in (
                "tcp://10.0.0.1:8786",
                "ws://scheduler:8786",
                "ucx://0.0.0.0:8786",
                "tcp://127.0.0.1.example:8786",
                "tcp://127.0.0.1@scheduler:8786",
                "tcp://localhost.example:8786",
            )
        ),
        (
            {
                "kind": "docker",
                "cluster": {"kind": "scheduler", "address": "tcp://127.0.0.1:1", "insecure_scheduler": "refuse"},
            },
            "address tcp://127.0.0.1:1 has no TLS",
        ),
        (
            {
                "kind": "docker",
                "cluster": {"kind": "scheduler", "address": "tls://a:1", "ca_file": "/ca", "key_file": "/k"},
            },
            "certificate_file is missing",
        ),
        (
            {"kind": "docker", "cluster": {"kind": "local", "key_file": "/k"}},
            "are for a scheduler whose address begins with tls:// or wss://",
        ),
        (
            {"kind": "docker", "flavors": [{"name": "f", "cpu": 1, "memory_gb": 1}] * 2},
            "should have different names (f stands there more than once)",
        ),
    ],
)
def test_pool__says_which_fields_do_not_fit(fields: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(said)):
        Pool.model_validate(CONTAINER | fields)


ENGINE = {"kind": "docker", "engine": {"network": "models"}}


def test_pool__with_an_engine_is_one_of_docker() -> None:
    engine = Pool.model_validate({**CONTAINER, **ENGINE, "model_root": "writable"}).engine
    assert engine is not None
    assert (engine.address, engine.socket) == ("unix:///var/run/docker.sock", "/var/run/docker.sock")
    other = Pool.model_validate({**CONTAINER, **ENGINE, "engine": {"network": "m", "address": "tcp://docker:2375"}})
    assert other.engine is not None and other.engine.socket is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kind": "process", "image": None}, "engine is for docker pools only"),
        ({"engine": {}}, "network"),
        ({"engine": {"network": "models", "address": "docker:2375"}}, "address"),
        ({"engine": {"network": "models", "address": "unix:///x:/y"}}, "address"),
        ({"engine": {"network": "host x"}}, "network"),
        ({"engine": {"network": "models", "group": 0}}, "group"),
        (
            {"cluster": {"kind": "scheduler", "address": "tls://s:1"}},
            "engine is for a pool whose cluster.kind is local",
        ),
        ({"engine": None, "model_root": "writable"}, "model_root is for pools that run images of models"),
    ],
)
def test_pool__refuses_an_engine_that_does_not_fit(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        Pool.model_validate({**CONTAINER, **ENGINE, **changed})
