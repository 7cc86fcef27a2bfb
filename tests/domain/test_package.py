"""A model package's config.json, as the format has it and as real files are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.domain.config_file import parse_config
from tasks.domain.errors import SpecificationError
from tasks.domain.mapping import Mapping, generate
from tasks.domain.package import PackageConfig

FULL: dict[str, Any] = {
    "model_type": "PyTorch",
    "model_algorithm": "image_classification",
    "metrics": {"f1": 0.345294, "accuracy": 0.462963},
    "apis": [
        {
            "url": "/",
            "method": "post",
            "request": {
                "Content-type": "multipart/form-data",
                "data": {"type": "object", "properties": {"images": {"type": "file"}}},
            },
            "response": {
                "Content-type": "application/json",
                "data": {"type": "object", "properties": {"mnist_result": {"type": "array",
                "item": [{"type": "string"}]}}},
            },
        }
    ],
    "dependencies": [
        {
            "installer": "pip",
            "packages": [
                {"package_name": "numpy", "package_version": "1.17.0", "restraint": "EXACT"},
                {"package_name": "Pillow", "package_version": "5.2.0", "restraint": "ATLEAST"},
                {"package_name": "h5py", "package_version": "2.8.0", "restraint": "ATMOST"},
                {"package_name": "requests"},
            ],
        }
    ],
    "health": {"url": "/ready", "protocol": "http", "initial_delay_seconds": 3, "timeout_seconds": 2,
               "period_seconds": 7, "failure_threshold": 4},
}  # fmt: skip


def read(document: Any, **changes: Any) -> PackageConfig:
    return parse_config(json.dumps({**document, **changes}).encode(), "config.json")


def refused(document: Any, where: str = "config.json") -> str:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(SpecificationError) as caught:
        parse_config(raw, where)
    return str(caught.value)


def test_package__reads_a_whole_configuration() -> None:
    config = read(FULL)
    assert config.model_type == "PyTorch"
    assert config.model_algorithm == "image_classification"
    assert config.metrics["f1"] == 0.345294
    (api,) = config.apis
    assert (api.url, api.method) == ("/", "POST")
    assert api.request.content_type == "multipart/form-data"
    assert api.file_leaf == "images"
    assert config.requirements == [["numpy==1.17.0", "Pillow>=5.2.0", "h5py<=2.8.0", "requests"]]
    health = config.health
    assert (health.url, health.protocol, health.initial_delay_seconds) == ("/ready", "HTTP", 3)
    assert (health.timeout_seconds, health.period_seconds, health.failure_threshold) == (2, 7, 4)


def test_package__has_the_formats_defaults() -> None:
    config = read({"model_type": "Custom"})
    (api,) = config.apis
    assert (api.url, api.method, api.file_leaf) == ("/", "POST", None)
    assert (config.health.url, config.health.period_seconds, config.health.failure_threshold) == ("/health", 5, 12)
    assert config.requirements == []
    assert config.swr_location is None


@pytest.mark.parametrize(
    "kind",
    [
        "Image",
        "PyTorch",
        "TensorFlow",
        "MindSpore",
        "Scikit_Learn",
        "XGBoost",
        "Custom",
        "Caffe",
        "MXNet",
        "Spark_MLlib",
    ],
)
def test_package__reads_every_type_of_model(kind: str) -> None:
    assert read({"model_type": kind}).model_type == kind


# Quirks of real files


@pytest.mark.parametrize("key", ["protocol", "procotol"])
def test_package__reads_the_protocol_however_it_is_spelt(key: str) -> None:
    assert read(FULL, health={key: "https"}).health.protocol == "HTTPS"


@pytest.mark.parametrize("key", ["Content-type", "Content-Type", "content-type"])
@pytest.mark.parametrize("value", ["applicaton/json", "application/json", "multipart/form-data", ""])
def test_package__the_declared_content_type_decides_nothing(key: str, value: str) -> None:
    request = {key: value, "data": {"type": "object", "properties": {"x": {"type": "number"}}}}
    config = read(FULL, apis=[{"request": request}])
    assert config.apis[0].request.content_type == value
    assert config.apis[0].file_leaf is None


@pytest.mark.parametrize(
    "items",
    [
        {"items": {"type": "number"}},
        {"items": [{"type": "number"}]},
        {"item": {"type": "number"}},
        {"item": [{"type": "number"}]},
    ],
)
def test_package__reads_items_as_object_or_list_and_misspelt(items: dict[str, Any]) -> None:
    data = {"type": "object", "properties": {"rows": {"type": "array", **items}}}
    config = read(FULL, apis=[{"request": {"data": data}}])
    assert Mapping(generate(config.apis[0].request.data)).body(["1"], 1) == b'{"rows":[1]}'


def test_package__reads_numbers_given_as_strings() -> None:
    health = {"initial_delay_seconds": "3", "timeout_seconds": "2.5", "period_seconds": "7", "failure_threshold": "4"}
    config = read(FULL, health=health)
    assert config.health.initial_delay_seconds == 3
    assert config.health.timeout_seconds == 2.5
    assert config.health.failure_threshold == 4


def test_package__reads_a_version_given_as_a_number() -> None:
    dependencies = [
        {"packages": [{"package_name": "a", "package_version": 2}, {"package_name": "b", "package_version": 1.5}]}
    ]
    assert read(FULL, dependencies=dependencies).requirements == [["a==2", "b==1.5"]]


def test_package__keeps_what_it_does_not_know() -> None:
    config = read(FULL, runtime="python3.7", min_cpu=4, apis=[{"url": "/", "note": "x", "request": {"extra": 1}}])
    assert config.model_extra is not None
    assert config.model_extra["min_cpu"] == 4
    assert config.apis[0].model_extra == {"note": "x"}
    assert config.apis[0].request.model_extra == {"extra": 1}
    assert PackageConfig.model_validate_json(config.model_dump_json(by_alias=True)) == config


def test_package__reads_a_byte_order_mark() -> None:
    assert parse_config(b"\xef\xbb\xbf" + json.dumps(FULL).encode(), "config.json") == read(FULL)


def test_package__json_and_back_is_the_same_configuration() -> None:
    config = read(FULL)
    assert PackageConfig.model_validate(json.loads(config.model_dump_json())) == config


# Dependencies


@pytest.mark.parametrize(
    ("package", "requirement"),
    [
        ({"package_name": "x"}, "x"),
        ({"package_name": "x", "restraint": "EXACT"}, "x"),
        ({"package_name": "x", "package_version": ""}, "x"),
        ({"package_name": "x", "package_version": "1"}, "x==1"),
        ({"package_name": "x", "package_version": "1", "restraint": None}, "x==1"),
        ({"package_name": "x", "package_version": "1", "restraint": ""}, "x==1"),
        ({"package_name": "x", "package_version": "1", "restraint": "EXACT"}, "x==1"),
        ({"package_name": "x", "package_version": "1", "restraint": "exact "}, "x==1"),
        ({"package_name": "x", "package_version": "1", "restraint": "EQUAL"}, "x==1"),
        ({"package_name": "x", "package_version": "1", "restraint": ">="}, "x>=1"),
        ({"package_name": "x", "restraint": "NEAR"}, "x"),
        ({"package_name": "x", "package_version": {}, "restraint": 7}, "x"),
        ({"package_name": "x", "package_version": "1", "restraint": "ATLEAST"}, "x>=1"),
        ({"package_name": "x", "package_version": "1", "restraint": "ATMOST"}, "x<=1"),
    ],
)
def test_package__writes_requirements_as_pip_does(package: dict[str, Any], requirement: str) -> None:
    assert read(FULL, dependencies=[{"installer": "PIP", "packages": [package]}]).requirements == [[requirement]]


def test_package__keeps_the_order_of_installer_steps_and_leaves_out_empty_ones() -> None:
    steps = [{"packages": [{"package_name": "b"}]}, {"packages": []}, {"packages": [{"package_name": "a"}]}]
    assert read(FULL, dependencies=steps).requirements == [["b"], ["a"]]


# APIs


def test_package__an_image_may_have_several_apis() -> None:
    config = read({"model_type": "Image", "apis": [{"url": "/"}, {"url": "/a"}, {"url": "b/c"}]})
    assert [api.url for api in config.apis] == ["/", "/a", "/b/c"]
    assert config.api("/a").url == "/a"
    assert config.api(None).url == "/"
    with pytest.raises(KeyError):
        config.api("/nowhere")


def test_package__the_only_api_is_the_default() -> None:
    assert read({"model_type": "Image", "apis": [{"url": "/predict"}]}).api(None).url == "/predict"


def test_package__several_apis_without_a_root_have_no_default() -> None:
    with pytest.raises(KeyError):
        read({"model_type": "Image", "apis": [{"url": "/a"}, {"url": "/b"}]}).api(None)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"model_type": "PyTorch", "apis": [{"url": "/"}, {"url": "/b"}]},
         "config.json: apis = '/, /b': a PyTorch model has exactly one API"),
        ({"model_type": "XGBoost", "apis": [{"url": "/predict"}]},
         "config.json: apis[0].url = '/predict': should be / for a XGBoost model"),
        ({"model_type": "Image", "apis": [{"url": "/a"}, {"url": "a"}]},
         "config.json: apis = '/a': each url should stand once"),
    ],
)  # fmt: skip
def test_package__holds_the_rules_of_its_type(document: dict[str, Any], message: str) -> None:
    assert message in refused(document)


def test_package__an_image_has_an_address() -> None:
    assert read({"model_type": "Image", "swr_location": "swr.host/x:1"}).swr_location == "swr.host/x:1"


# What is wrong


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"model_type": None}, "model_type: "),
        ({"model_type": 7}, "model_type = '7': should be a valid string"),
        ({"apis": "x"}, "apis = 'x': "),
        ({"apis": [{"url": 7}]}, "apis[0].url = '7': "),
        ({"apis": [{"url": "/a b"}]}, "apis[0].url = '/a b': a URL path has no blanks"),
        ({"apis": [{"request": {"data": [1]}}]}, "apis[0].request.data: "),
        ({"apis": [{"request": "x"}]}, "apis[0].request = 'x': "),
        ({"dependencies": [{"installer": "conda"}]}, "dependencies[0].installer = 'conda': should be 'pip'"),
        (
            {"dependencies": [{"packages": [{"package_name": "a"}, {}]}]},
            "dependencies[0].packages[1].package_name: is missing",
        ),
        (
            {"dependencies": [{"packages": [{"package_name": "a", "package_version": "1", "restraint": "NEAR"}]}]},
            "dependencies[0].packages[0].restraint = 'NEAR': should be 'EXACT', 'ATLEAST' or 'ATMOST'",
        ),
        ({"health": {"period_seconds": 0}}, "health.period_seconds = '0': should be greater than 0"),
        ({"health": {"failure_threshold": "many"}}, "health.failure_threshold = 'many': "),
        ({"health": {"protocol": "TCP"}}, "health.protocol = 'TCP': should be HTTP or HTTPS"),
        ({"health": {"procotol": "TCP"}}, "health.pro"),
        ({"health": [1]}, "health: "),
    ],
)
def test_package__names_the_path_inside_the_json(changes: dict[str, Any], where: str) -> None:
    assert f"  - config.json: {where}" in refused({**FULL, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"metrics": None}, {"metrics": []}, {"metrics": "0.9"}, {"model_algorithm": None}, {"model_algorithm": ["a"]},
        {"dependencies": None}, {"health": None}, {"apis": None}, {"swr_location": None},
        {"dependencies": {}}, {"dependencies": ""}, {"health": ""}, {"health": {}}, {"apis": [{"method": ""}]},
        {"health": {"initial_delay_seconds": None, "period_seconds": "", "url": ""}},
        {"health": []}, {"dependencies": []}, {"apis": {}}, {"apis": ""}, {"apis": []}, {"apis": {"url": "/"}},
        {"apis": [{"request": ""}]}, {"apis": [{"request": []}]}, {"apis": [{"request": {"data": ""}}]},
        {"apis": [{"request": {"Content-type": ["a"]}}]}, {"apis": [{"protocol": ""}]}, {"apis": [{"protocol": 7}]},
        {"apis": [{"response": None}]}, {"apis": [{"response": {"data": "text"}}]}, {"apis": [{"response": []}]},
        {"apis": [{"url": None, "method": None, "request": {"data": None, "Content-type": None}}]},
        {"dependencies": [{"installer": None, "packages": [{"package_name": "a", "restraint": None}]}]},
    ],
)  # fmt: skip
def test_package__reads_what_says_nothing_as_absent(changes: dict[str, Any]) -> None:
    config = read({"model_type": "Custom"}, **changes)
    assert config.api(None).url == "/" and config.health.url == "/health"
    assert (config.health.initial_delay_seconds, config.health.period_seconds) == (0, 5)


IMAGE_APIS = [{"url": "/"}, {"url": "/greet"}]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"apis": [*IMAGE_APIS, {"url": "/bye", "method": "get"}]}, ["apis[2], /bye, is asked by GET"]),
        ({"apis": [{"url": "/", "method": "get"}, *IMAGE_APIS]}, ["apis[0], /, is asked by GET"]),
        ({"apis": [*IMAGE_APIS, {"url": "/s", "protocol": "grpc"}]}, ["apis[2], /s, has the protocol grpc"]),
        ({"apis": [*IMAGE_APIS, {"url": "/a b"}]}, ["apis[2]: url = '/a b': a URL path has no blanks"]),
        ({"apis": [*IMAGE_APIS, {"url": "/c", "request": {"data": "x"}}]},
         ["apis[2]: request.data = 'x': should be a valid dictionary"]),
        ({"apis": [*IMAGE_APIS, "text", None]}, ["apis[2]: ", "apis[3]: "]),
        ({"dependencies": [{"installer": "conda"}]}, ["dependencies[0].installer = 'conda': should be 'pip'"]),
        ({"dependencies": "numpy"}, ["dependencies = 'numpy': "]),
        ({"metrics": 7, "model_algorithm": {}, "anything": [None]}, []),
        ({"apis": [{"url": "/"}, {"url": "/greet", "response": 7}]}, []),
    ],
)  # fmt: skip
def test_package__a_part_that_no_service_uses_is_passed_over_and_told(changes: dict[str, Any], told: list[str]) -> None:
    config = read({"model_type": "Image", "apis": IMAGE_APIS}, **changes)
    assert len(config.passed_over) == len(told)
    for said, expected in zip(config.passed_over, told, strict=True):
        assert said.startswith(expected)
    assert config.api(None).url == "/" and config.api("/greet").carries_body
    assert "passed_over" not in config.model_dump_json()


def test_package__an_address_of_an_image_is_passed_over_where_none_is_run() -> None:
    config = read({"model_type": "PyTorch", "swr_location": "swr.host/x:1"})
    assert (config.swr_location, len(config.passed_over)) == (None, 1)
    config = read({"model_type": "PyTorch", "apis": [{"url": "/"}, {"url": "/health", "method": "get"}]})
    assert config.passed_over == ("apis[1], /health, is asked by GET",)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": None}, {"model_type": 7}, {"model_type": "PyTorch"}, {"dependencies": [{"packages": 7}]},
        {"swr_location": {}}, {"model_type": "PyTorch", "swr_location": "x"},
    ],
)  # fmt: skip
def test_package__of_a_running_server_only_apis_and_health_count(changes: dict[str, Any]) -> None:
    document = {"model_type": "Image", "apis": [{"url": "/predict"}, {"url": "/other"}], **changes}
    config = parse_config(json.dumps(document).encode(), "config.json", running=True)
    assert config.api("/predict").url == "/predict"


def test_package__a_broken_api_without_another_one_is_refused() -> None:
    said = refused({"model_type": "Image", "apis": [{"url": "/a b"}, {"url": "/c", "method": "get"}]})
    assert "apis[0].url = '/a b': a URL path has no blanks" in said


def test_package__says_that_the_type_is_missing() -> None:
    assert "config.json: model_type: is missing" in refused({})


def test_package__tells_every_problem_in_one_answer() -> None:
    text = refused({"apis": [{"url": 7}, {"url": 8}], "health": {"period_seconds": -1}})
    assert "(4 problems)" in text
    for where in ("model_type", "apis[0].url", "apis[1].url", "health.period_seconds"):
        assert f"config.json: {where}" in text


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"{'a': 1}", b"\xff\xfe{", b"[" * 100_000, b'{"model_type": ' + b"9" * 5000 + b"}", b'{"a" 1,}']
)
def test_package__says_that_it_should_be_json(raw: bytes) -> None:
    assert "s3://b/p/config.json: should be JSON in UTF-8" in refused(raw, "s3://b/p/config.json")


@pytest.mark.parametrize(("raw", "kind"), [(b"[]", "list"), (b'"x"', "str"), (b"7", "int"), (b"null", "NoneType")])
def test_package__says_that_it_should_be_an_object(raw: bytes, kind: str) -> None:
    assert f"should be a JSON object, not {kind}" in refused(raw)


@pytest.mark.parametrize(
    ("apis", "asked", "expected"),
    [
        ([("/", "post"), ("/bye", "get")], "/bye", ("/bye", False)),
        ([("/", "get"), ("/", "post")], "/", ("/", True)),
        ([("/health", "get"), ("/predict", "put")], None, ("/predict", True)),
        ([("/health", "get")], None, ("/health", False)),
        ([("/", "get"), ("/a", "post"), ("/b", "post")], None, ("/", False)),
    ],
)
def test_api__that_carries_a_body_comes_first(
    apis: list[tuple[str, str]], asked: str | None, expected: tuple[str, bool]
) -> None:
    found = PackageConfig.model_validate(
        {"model_type": "Image", "apis": [{"url": url, "method": method} for url, method in apis]}
    ).api(asked)
    assert (found.url, found.carries_body) == expected
