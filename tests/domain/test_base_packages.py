"""The base list of a model's type."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.domain.base_packages import default_modules, from_base_list, parse_base_lists
from tasks.domain.runtime import parse_runtime

LISTS = {"all": {"numpy": "numpy", "PIL": "Pillow"}, "PyTorch": {"torch": "torch"}, "TensorFlow": {"keras": "keras"}}
SHIPPED = Path(__file__).parents[2] / "infra" / "serving" / "base_packages.toml"


@pytest.mark.parametrize(
    ("model_type", "runtime", "requirements", "left"),
    [
        ("PyTorch", "", ["Pillow", "numpy", "torch"], ["keras", "other"]),
        ("pytorch", "pytorch1.4-python3.7", ["Pillow", "numpy", "torch==1.4.*"], ["keras", "other"]),
        ("Custom", "", ["Pillow", "numpy"], ["keras", "other", "torch"]),
    ],
)
def test_base_list__brings_what_code_imports(
    model_type: str, runtime: str, requirements: list[str], left: list[str]
) -> None:
    missing = {"numpy", "PIL", "torch", "keras", "other"}
    assert from_base_list(missing, LISTS, model_type, parse_runtime(runtime)) == (requirements, left)


def test_shipped_list__names_what_the_original_had() -> None:
    lists = parse_base_lists(SHIPPED.read_text())
    for model_type, module in (("PyTorch", "torchvision"), ("TensorFlow", "tensorflow"), ("XGBoost", "xgboost")):
        assert from_base_list({module, "numpy", "PIL", "cv2"}, lists, model_type, parse_runtime(""))[1] == []


@pytest.mark.parametrize("text", ["numpy", "numpy = 'numpy'", "[all]\nnumpy = 1", "[all]\nnumpy = ' '"])
def test_list__that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should"):
        parse_base_lists(text)


@pytest.mark.parametrize(
    ("model_type", "source", "modules"),
    [
        ("XGBoost", b"class A(Base): pass", {"xgboost"}),
        ("Scikit_Learn", b"class A(Base): pass", {"joblib"}),
        ("XGBoost", b"def _inference(self, data): pass", set()),
        ("PyTorch", b"class A(Base): pass", set()),
    ],
)
def test_base_class__that_runs_the_model_needs_its_module(model_type: str, source: bytes, modules: set[str]) -> None:
    assert default_modules(model_type, source) == modules
