"""How a package is served: by its files, its type, and where instances are."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.domain.errors import SpecificationError
from tasks.domain.package import PackageConfig, serving_of

IMAGE = {"model_type": "Image", "swr_location": "registry.example.com/team/model:1.0"}
PODS = "runs on docker pools with an engine, and on pools whose instances are pods (cluster.kind kubernetes)"


def served(config: dict[str, Any], *files: str, in_pods: bool) -> str:
    return serving_of(PackageConfig.model_validate(config), set(files), "/package", in_pods=in_pods)


@pytest.mark.parametrize(
    ("config", "files", "on_machines", "in_pods"),
    [
        ({"model_type": "PyTorch"}, ["customize_service.py", "run.sh"], "built-in", "built-in"),
        ({"model_type": "PyTorch"}, ["run.sh"], "boot-file", "boot-file"),
        ({"model_type": "Image"}, ["run.sh", "customize_service.py"], "boot-file", "boot-file"),
        (IMAGE, ["run.sh"], "boot-file", "sidecar"),
    ],
)
def test_serving__is_decided_by_type_files_and_place(
    config: dict[str, Any], files: list[str], on_machines: str, in_pods: str
) -> None:
    assert served(config, *files, in_pods=False) == on_machines
    assert served(config, *files, in_pods=True) == in_pods


@pytest.mark.parametrize(
    ("config", "in_pods", "said"),
    [
        (IMAGE, False, PODS),
        ({"model_type": "Image"}, False, "the package has no run.sh, so nothing says how it is served"),
        (
            {"model_type": "MXNet", "execution_code": "s3://bucket/code.py"},
            False,
            "execution_code of its config.json names the code (s3://bucket/code.py): copy it into the package",
        ),
        ({"model_type": "Image"}, True, "nor does its config.json name an image in swr_location"),
        ({"model_type": "PyTorch"}, True, "the package has no customize_service.py or run.sh"),
        ({**IMAGE, "swr_location": "https:// x"}, True, "swr_location of the model's config.json = 'https:// x'"),
        ({**IMAGE, "health": {"protocol": "HTTPS"}}, True, "should be HTTP: instances are asked at 127.0.0.1"),
    ],
)
def test_serving__that_cannot_be_says_what_is_missing(config: dict[str, Any], in_pods: bool, said: str) -> None:
    with pytest.raises(SpecificationError) as refused:
        served(config, in_pods=in_pods)
    assert said in str(refused.value)


def test_serving__of_an_image_without_pods_says_no_more_than_is_true() -> None:
    with pytest.raises(SpecificationError) as refused:
        served({"model_type": "Image"}, in_pods=False)
    assert "swr_location" not in str(refused.value)


def in_container(config: dict[str, Any], *files: str) -> str:
    return serving_of(PackageConfig.model_validate(config), set(files), "/package", in_containers=True)


def test_serving__on_a_pool_with_an_engine_is_by_the_image_and_by_nothing_else() -> None:
    assert in_container(IMAGE) == in_container(IMAGE, "run.sh") == "container"
    for config, files in (({"model_type": "Image"}, ["run.sh"]), ({"model_type": "PyTorch"}, ["customize_service.py"])):
        with pytest.raises(SpecificationError, match="should be a model of type Image with swr_location: runs of this"):
            in_container(config, *files)
    with pytest.raises(SpecificationError, match="should be the address of an image"):
        in_container({**IMAGE, "swr_location": "--privileged"})
