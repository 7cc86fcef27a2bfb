"""``runtime`` of a config.json: the Python, the framework and the kind of machine that the package was made for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

OLDEST_PYTHON = (3, 6)
"""The built-in model server runs on this one and on later ones."""
_PYTHON = re.compile(r"(?<![a-z])py(?:thon)?[_-]?([23])\.(\d{1,2})")
_FRAMEWORKS = {
    "tensorflow": re.compile(r"(?<![a-z])(?:tensorflow|tf)[_-]?(\d+(?:\.\d+)+)"),
    "torch": re.compile(r"(?<![a-z])(?:pytorch|torch)[_-]?(\d+(?:\.\d+)+)"),
    "mindspore": re.compile(r"mindspore[_-]?(\d+(?:\.\d+)+)"),
    "mxnet": re.compile(r"mxnet[_-]?(\d+(?:\.\d+)+)"),
    "xgboost": re.compile(r"xgboost[_-]?(\d+(?:\.\d+)+)"),
    "scikit-learn": re.compile(r"(?:sklearn|scikit[_-]learn)[_-]?(\d+(?:\.\d+)+)"),
}
"""Distribution -> its version in a runtime."""
_ACCELERATOR = re.compile(r"cuda|gpu|cann|ascend", re.IGNORECASE)


@dataclass(frozen=True)
class Runtime:
    """What a runtime says. ``python`` is its major and minor version; ``frameworks`` are versions by distribution."""

    text: str = ""
    python: tuple[int, int] | None = None
    frameworks: Mapping[str, str] = field(default_factory=dict)
    accelerator: bool = False

    @property
    def python_text(self) -> str:
        """As in ``3.6``; empty if it names none."""
        return ".".join(map(str, self.python)) if self.python else ""

    def pin(self, requirement: str) -> str:
        """A requirement without a version, with that of the runtime if it names one."""
        version = self.frameworks.get(requirement)
        return requirement if version is None else f"{requirement}=={'.'.join(version.split('.')[:2])}.*"


def parse_runtime(text: str | None) -> Runtime:
    """Read a runtime such as ``python3.6``, ``tf1.13-python3.6-cpu`` or ``pytorch_1.8.0-cuda_10.2-py_3.7-...``."""
    small = (text or "").strip().lower()
    python = _PYTHON.search(small)
    found = {name: pattern.search(small) for name, pattern in _FRAMEWORKS.items()}
    return Runtime(
        text=(text or "").strip(),
        python=(int(python[1]), int(python[2])) if python else None,
        frameworks={name: match[1] for name, match in found.items() if match is not None},
        accelerator=_ACCELERATOR.search(small) is not None,
    )
