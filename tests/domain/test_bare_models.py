"""Bare models: which file is one, what it says without being loaded, and the config.json made for it."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import zipfile
import zlib
from typing import Any

import pytest

from tasks.domain.bare_models import (
    MADE,
    Leaf,
    Signature,
    could_be_model,
    format_of,
    is_model_file_name,
    package_config,
    parse_signature,
)
from tasks.domain.mapping import Mapping, generate
from tasks.domain.model_file_versions import of_pickle, of_skops, of_xgboost
from tasks.domain.package import PackageConfig
from tasks.domain.service import is_package_address

UBJ = b"{L\0\0\0\0\0\0\0\x07learner{"


@pytest.mark.parametrize(
    ("name", "head", "kind"),
    [
        ("m.onnx", b"\x08\x09", "ONNX"), ("m.skops", b"PK\x03\x04", "skops"),
        ("m.txt", b"tree\nversion=v4", "LightGBM"),
        ("m.m", b"tree\nversion=v4", "LightGBM"), ("m.ubj", UBJ, "XGBoost"), ("m.model", UBJ, "XGBoost"),
        ("m.json", b'{"learner":{', "XGBoost"), ("m.json", b'{ "version":[1],"learner":{', "XGBoost"),
        ("m.bin", b"binf\0", "XGBoost"), ("m.pkl", b"\x80\x04", "scikit-learn"),
        ("m.joblib", gzip.compress(b"x", mtime=0), "scikit-learn"), ("m.joblib", zlib.compress(b"x"), "scikit-learn"),
        ("m.m", bz2.compress(b"x"), "scikit-learn"), ("m.m", lzma.compress(b"x"), "scikit-learn"),
    ],
)  # fmt: skip
def test_format__is_told_by_the_first_bytes(name: str, head: bytes, kind: str) -> None:
    assert format_of(name, head) == kind


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("notes.txt", 'is no text model of LightGBM, whose first line is "tree"'),
        ("data.json", 'is no model of XGBoost, which begins with a "learner"'),
        ("m.h5", "is in no known format; it should be a package folder with config.json, or a bare model: .onnx"),
    ],
)
def test_format__that_is_none_says_what_one_looks_like(name: str, expected: str) -> None:
    with pytest.raises(ValueError, match="is ") as raised:
        format_of(name, b"{} no model")
    assert str(raised.value).startswith(expected)


def test_names__of_model_files_are_paths_and_others_names_in_the_store() -> None:
    assert all(map(is_package_address, ("model.joblib", "MODEL.ONNX", "m.m", "a/b", "s3://b/m.bin")))
    assert not any(map(is_package_address, ("iris", "iris-1.0", "model.v2")))
    assert is_model_file_name("x.ubj") and not is_model_file_name("x.bin")
    assert could_be_model("x.bin") and not any(map(could_be_model, ("config.json", ".x.pkl", "requirements.txt")))


class Estimator:
    """Pickled with the version, as scikit-learn does."""

    def __init__(self, version: str) -> None:
        self._sklearn_version = version


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress, bz2.compress, lzma.compress])
def test_versions__are_found_in_a_pickle_that_is_not_loaded(protocol: int, pack: Any) -> None:
    data = pickle.dumps({"a": "x" * 300, "model": Estimator("1.9.1"), "c": 1.5}, protocol)
    if protocol == 0:  # text, which neither joblib nor scikit-learn's examples write
        assert of_pickle(pack(data)) == ([], None)
    else:
        assert of_pickle(pack(data)) == (["scikit-learn==1.9.1"], None)


@pytest.mark.parametrize(
    ("version", "numpy", "python"),
    [("0.23.2", "1.23.5", (3, 9)), ("1.2.2", "1.26.4", (3, 11)), ("1.5.0", "", (3, 12)), ("1.9.1", "", None)],
)
def test_versions__of_old_models_bound_numpy_and_python(version: str, numpy: str, python: Any) -> None:
    expected = [f"scikit-learn=={version}", *([f"numpy<={numpy}"] if numpy else [])]
    assert of_pickle(pickle.dumps(Estimator(version))) == (expected, python)


def test_versions__of_a_broken_file_are_none() -> None:
    assert of_pickle(b"\x1f\x8bnothing") == ([], None)
    assert of_xgboost(b"{L nothing") == []
    with pytest.raises(ValueError, match=r"is no file of skops: "):
        of_skops(b"PK nothing")


def test_versions__of_xgboost_and_skops() -> None:
    assert of_xgboost(UBJ + b"}L\0\0\0\0\0\0\0\x07version[#L\0\0\0\0\0\0\0\x03i\x02i\x01i\x00}") == ["xgboost>=2.1.0"]
    assert of_xgboost(b'{"learner":{},"version":[1, 7, 6]}') == ["xgboost>=1.7.6"]
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        state = {"_sklearn_version": {"__class__": "str", "__loader__": "JsonNode", "content": '"1.9.0"'}}
        archive.writestr("schema.json", json.dumps({"content": state, "module": "xgboost.sklearn"}))
    assert of_skops(file.getvalue()) == (["scikit-learn==1.9.0", "xgboost", "pandas"], None)


def test_package__takes_one_leaf_for_each_feature_and_many_rows() -> None:
    signature = Signature(
        (Leaf("a b", "number"), Leaf("c", "string")), (Leaf("predictresult", "integer"), Leaf("shares", "number", True))
    )
    named = ["scikit-learn==1.9.1", "numpy<=2"]
    made = package_config(MADE["scikit-learn"], "scikit-learn", named, signature, "python3.9")
    config = PackageConfig.model_validate(made)
    assert config.requirements == [named]
    assert (config.model_type, config.runtime) == ("Scikit_Learn", "python3.9")
    mapping = Mapping(generate(config.apis[0].request.data))
    assert mapping.body(["1", "x"], 1) == b'{"data":{"req_data":[{"a b":1,"c":"x"}]}}'
    assert mapping.takes_many_rows
    answer = made["apis"][0]["response"]["data"]["properties"]["data"]["properties"]["resp_data"]["items"][0]
    assert answer["properties"]["shares"] == {"type": "array", "items": {"type": "number"}}


@pytest.mark.parametrize(
    ("described", "expected"),
    [
        ({"inputs": [], "outputs": []}, "its signature has no input"),
        ({"inputs": [{"name": "a", "type": "number"}] * 2, "outputs": []}, "has several inputs called a"),
        ([1], "its signature cannot be read"),
        ({"inputs": [{"type": "number"}], "outputs": []}, "its signature cannot be read"),
    ],
)
def test_signature__that_cannot_be_used_says_why(described: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_signature(described)
