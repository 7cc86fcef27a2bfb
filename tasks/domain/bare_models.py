"""Bare models: models without a package. Their formats, by name and first bytes, and the packages made of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from tasks.domain.package import BOOT_FILE, CONFIG_NAMES, CUSTOM_SERVICE, REQUIREMENTS

Format = Literal["scikit-learn", "skops", "XGBoost", "LightGBM", "ONNX", "MLflow", "saved_model"]

HEAD_BYTES = 1 << 10
"""Of a file, enough to tell its format."""
MLMODEL = "MLmodel"
SAVED_MODEL = "saved_model.pb"
_PICKLED = (".joblib", ".pkl", ".pickle", ".m", ".sav")
_OF_XGBOOST = (".ubj", ".xgb", ".bst", ".json")
_OF_LIGHTGBM = (".lgb", ".lgbm", ".txt")
_ANY = (".model", ".bin")
_ENDINGS = (*_PICKLED, ".skops", *_OF_XGBOOST, *_OF_LIGHTGBM, ".onnx", *_ANY)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x5d\x00\x00", b"\x78", b"\x04\x22\x4d\x18")
"""First bytes of what joblib writes compressed: gzip, bzip2, xz, lzma, zlib, lz4."""
_OTHER_ENDINGS = (".md", ".rst", ".pdf")
_OTHER_NAMES = frozenset({"license", "readme", "notice", REQUIREMENTS, "readme.txt", "license.txt"})
BARE_MODELS = (
    ".onnx, scikit-learn (.joblib, .pkl, .m, .skops), XGBoost (.ubj, .json, .xgb), LightGBM (.txt, .lgb), an MLflow "
    "folder (MLmodel) or saved_model.pb"
)


def is_model_file_name(name: str) -> bool:
    """Whether a name without any slash is surely that of a model file, not of a model in the store."""
    return name.lower().endswith((*_PICKLED, ".skops", *_OF_XGBOOST, ".lgb", ".lgbm", ".txt", ".onnx"))


def could_be_model(name: str) -> bool:
    """Whether a file in a folder could be its model, by its name."""
    lower = name.lower()
    return lower.endswith(_ENDINGS) and not lower.startswith(".") and lower not in (_OTHER_NAMES | {"config.json"})


def is_aside(name: str) -> bool:
    """Whether a file beside a bare model is none of its parts: a text, a licence, hidden."""
    lower = name.lower()
    return lower.startswith((".", "_")) or lower in _OTHER_NAMES or lower.endswith(_OTHER_ENDINGS)


def is_of_package(names: Collection[str]) -> bool:
    """Whether files and folders of these names are those of a package, or of one that is incomplete."""
    return bool({CONFIG_NAMES[0], CUSTOM_SERVICE, BOOT_FILE}.intersection(names))


def format_of(name: str, head: bytes) -> Format:
    """The format of a file by its first bytes, and by its name. Raises ValueError saying what does not fit."""
    lower = name.lower()
    if lower.endswith(".onnx"):
        return "ONNX"
    if lower.endswith(".skops") and head.startswith(b"PK"):
        return "skops"
    if head.startswith(b"tree\n"):
        return "LightGBM"
    if head.startswith(b"binf") or (head.lstrip()[:1] == b"{" and b"learner" in head[:200]):
        return "XGBoost"
    if head.startswith(b"\x80") or head.startswith(_COMPRESSED):
        return "scikit-learn"
    if lower.endswith(_OF_LIGHTGBM):
        raise ValueError('is no text model of LightGBM, whose first line is "tree"')
    if lower.endswith(_OF_XGBOOST):
        raise ValueError('is no model of XGBoost, which begins with a "learner"')
    raise ValueError(
        f"is in no known format; it should be a package folder with config.json, or a bare model: {BARE_MODELS}"
    )


@dataclass(frozen=True)
class Made:
    """What a format is made into: ``model_type`` of config.json, and the ``service`` of infra/serving/bare_models."""

    model_type: str
    service: str
    requirements: tuple[str, ...]
    """Distributions that the service needs, whatever the model names."""


MADE: dict[Format, Made] = {
    "scikit-learn": Made("Scikit_Learn", "scikit_learn.py", ("scikit-learn", "joblib", "numpy")),
    "skops": Made("Scikit_Learn", "skops_model.py", ("scikit-learn", "skops", "numpy")),
    "XGBoost": Made("XGBoost", "xgboost_model.py", ("xgboost", "numpy")),
    "LightGBM": Made("LightGBM", "lightgbm_model.py", ("lightgbm", "numpy")),
    "ONNX": Made("Custom", "onnx_model.py", ("onnxruntime", "numpy")),
    "MLflow": Made("Custom", "mlflow_model.py", ("mlflow", "pandas")),
    "saved_model": Made("TensorFlow", "saved_model.py", ("tensorflow",)),
}


@dataclass(frozen=True)
class Leaf:
    """One field of a row of a request or of an answer; ``many``: an array of the type."""

    name: str
    type: str
    many: bool = False


@dataclass(frozen=True)
class Signature:
    """The fields of a row that a bare model takes, and of its answer to it."""

    inputs: tuple[Leaf, ...]
    outputs: tuple[Leaf, ...]


def parse_signature(described: Any) -> Signature:
    """The signature as the describing program prints it. Raises ValueError if it is none, or has no input."""
    try:
        leaves = [
            tuple(Leaf(str(one["name"]), str(one["type"]), bool(one.get("many"))) for one in described[side])
            for side in ("inputs", "outputs")
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"its signature cannot be read: {error!r}") from None
    inputs, outputs = leaves
    names = [leaf.name for leaf in inputs]
    if not inputs:
        raise ValueError("its signature has no input")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"its signature has several inputs called {', '.join(twice[:3])}")
    return Signature(inputs, outputs)


def package_config(
    made: Made, algorithm: str, requirements: Sequence[str], signature: Signature | None = None, runtime: str = ""
) -> dict[str, Any]:
    """The config.json of the package that a bare model is made into; without a signature, one to describe it with."""
    config: dict[str, Any] = {"model_type": made.model_type, "model_algorithm": algorithm}
    if runtime:
        config["runtime"] = runtime
    if signature is not None:
        request = _message("req_data", signature.inputs, required=True)
        response = _message("resp_data", signature.outputs, required=False)
        config["apis"] = [{"url": "/", "method": "post", "request": request, "response": response}]
    packages = [_package(one) for one in requirements]
    config["dependencies"] = [{"installer": "pip", "packages": packages}] if packages else []
    config["health"] = {"url": "/health", "protocol": "http", "period_seconds": 1, "failure_threshold": 1200}
    return config


def _message(name: str, leaves: Sequence[Leaf], *, required: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "object", "properties": {leaf.name: _schema(leaf) for leaf in leaves}}
    if required:
        row["required"] = [leaf.name for leaf in leaves]
    rows = {"type": "object", "properties": {name: {"type": "array", "items": [row]}}}
    return {"Content-type": "application/json", "data": {"type": "object", "properties": {"data": rows}}}


def _schema(leaf: Leaf) -> dict[str, Any]:
    one = {"type": leaf.type} if leaf.type else {}
    return {"type": "array", "items": one} if leaf.many else one


def _package(requirement: str) -> dict[str, str]:
    for sign, restraint in (("==", "EXACT"), (">=", "ATLEAST"), ("<=", "ATMOST")):
        name, found, version = requirement.partition(sign)
        if found:
            return {"package_name": name, "package_version": version, "restraint": restraint}
    return {"package_name": requirement}
