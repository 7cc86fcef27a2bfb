"""What the code of a package imports, and what of it the base list brings."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.clients.packages.package_code import code_needs, read_base_lists
from tasks.domain.config_file import parse_config
from tasks.domain.errors import SpecificationError
from tasks.domain.settings import Settings

LISTS = {"all": {"numpy": "numpy", "PIL": "Pillow", "cv2": "opencv", "yaml": "PyYAML"}, "PyTorch": {"torch": "torch"}}


def package(folder: Path, files: dict[str, str], **config: object) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "PyTorch", **config}))
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.mark.parametrize(
    ("files", "config", "requirements"),
    [
        ({"customize_service.py": "import numpy as np\nfrom PIL import Image"}, {}, ["Pillow", "numpy"]),
        ({"customize_service.py": "import torch"}, {"runtime": "pytorch1.4-python3.7"}, ["torch==1.4.*"]),
        ({"customize_service.py": "import torch, numpy"}, {"model_type": "Custom"}, ["numpy"]),
        # Modules of the package are followed; those that nothing imports are not.
        ({"customize_service.py": "import a", "a.py": "import b.c", "b/c.py": "import cv2", "d.py": "import yaml"}, {},
         ["opencv"]),
        ({"customize_service.py": "import net", "net/__init__.py": "from .x import X", "net/x.py": "import torch"},
         {}, ["torch"]),
        ({"customize_service.py": "from model.net import Net", "net.py": "import numpy"}, {}, ["numpy"]),
        ({"customize_service.py": "import a", "a.py": "import numpy\n def"}, {}, []),
        ({"customize_service.py": "import numpy", "numpy.py": ""}, {}, []),
        ({"customize_service.py": "import numpy", "requirements.txt": "numpy==1.2\n"}, {}, []),
        ({"customize_service.py": "import numpy"},
         {"dependencies": [{"packages": [{"package_name": "pandas"}]}]}, []),
        ({"customize_service.py": "class A: pass"}, {"model_type": "XGBoost"}, []),
    ],
)  # fmt: skip
def test_base_list__brings_what_the_code_imports_and_nothing_else_provides(
    tmp_path: Path, files: dict[str, str], config: dict[str, object], requirements: list[str]
) -> None:
    folder = package(tmp_path, files, **config)
    read = parse_config((folder / "config.json").read_bytes(), "config.json")
    assert code_needs(folder, read, LISTS).base == requirements


def test_base_list__brings_the_framework_of_a_default_inference(tmp_path: Path) -> None:
    folder = package(tmp_path, {"customize_service.py": "class A(Base): pass"}, model_type="XGBoost")
    read = parse_config((folder / "config.json").read_bytes(), "config.json")
    assert code_needs(folder, read, read_base_lists(Settings().base_packages)).base == ["xgboost"]


@pytest.mark.parametrize("content", [None, b"[all", b"\xff"])
def test_base_lists__that_cannot_be_read_name_the_file(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "lists.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecificationError, match=r"THRESHER_BASE_PACKAGES = .*lists\.toml"):
        read_base_lists(path)
