"""What a package's code imports that nothing brings."""

from __future__ import annotations

import pytest

from tasks.domain.package_imports import import_lines, imported, missing, modules_of


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import os, numpy as np\nfrom PIL import Image\n", {"os", "numpy", "PIL"}),
        ("import torch.nn.functional as F\nfrom . import own\nfrom .own import x\n", {"torch.nn.functional"}),
        ("def f():\n    import cv2\n", {"cv2"}),
        ("class A:\n    try:\n        import fast\n    except ImportError:\n        import slow\n", set()),
        ("try:\n    import fast\nexcept (ImportError, OSError):\n    pass\nelse:\n    import more\n", {"more"}),
        ("try:\n    import fast\nexcept KeyError:\n    pass\n", {"fast"}),
        ("import typing\nif typing.TYPE_CHECKING:\n    import pandas\nelse:\n    import x\n", {"typing", "x"}),
        ("# coding=gbk\nimport yaml  # \u6c49\n", {"yaml"}),
        ("", set()),
    ],
)  # fmt: skip
def test_imported__are_modules_that_code_cannot_do_without(code: str, names: set[str]) -> None:
    assert imported(code.encode("gbk")) == names


def test_imported__of_what_is_no_python_says_where() -> None:
    with pytest.raises(SyntaxError) as raised:
        imported(b"import os\nprint 'x'\n")
    assert raised.value.lineno == 2


def test_modules_of__are_code_and_folders() -> None:
    files = ["customize_service.py", "net/", "data", "fast.cpython-311.so", "numpy.onnx", "README.md"]
    assert modules_of(files) == {"customize_service", "net", "data", "fast"}


@pytest.mark.parametrize(
    ("names", "installed", "expected"),
    [
        ({"os", "json", "customize_service", "net.layers"}, [], []),
        ({"numpy", "cv2", "log"}, [], ["cv2", "log", "numpy"]),
        ({"numpy.linalg"}, ["numpy==1.26.0"], []),
        ({"PIL", "sklearn.svm", "yaml", "cv2"}, ["Pillow>=9", "scikit_learn", "PyYAML", "opencv-python-headless"], []),
        ({"numpy", "PIL", "torch"}, ["torchvision==0.20"], []),
        ({"numpy"}, ["torchvision"], []),
        ({"onnxruntime", "faiss", "tensorflow"}, ["onnxruntime-gpu", "faiss_cpu", "tensorflow-cpu<2.20"], []),
        ({"mylib"}, ["wheels/mylib-1.0-py3-none-any.whl"], []),
        ({"numpy"}, ["numpydoc"], ["numpy"]),
        ({"model_service.pytorch_model_service", "model_service"}, [], []),
        ({"model_service.hiai_model_service"}, ["numpy"], ["model_service.hiai_model_service"]),
    ],
)  # fmt: skip
def test_missing__is_what_neither_package_nor_dependencies_nor_server_have(
    names: set[str], installed: list[str], expected: list[str]
) -> None:
    there = {"customize_service", "net", "model_service", "model_service.pytorch_model_service"}
    assert missing(names, installed, there) == expected


def test_lines__are_those_of_the_first_import() -> None:
    code = b"import os\nfrom PIL import (\n    Image,\n)\ndef f():\n    import cv2, os\n    import cv2\n"
    assert import_lines(code) == {"os": 1, "PIL": 2, "cv2": 6}
