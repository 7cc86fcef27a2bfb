"""The base list: packages that a model's type brings along, as the images of the original platform did."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping

from tasks.domain.runtime import Runtime

EVERY_TYPE = "all"
BaseLists = Mapping[str, Mapping[str, str]]
"""Model type (``all``: every one) -> module -> requirement."""
_DEFAULT_INFERENCE = {"xgboost": "xgboost", "scikit_learn": "joblib", "tensorflow": "tensorflow"}
"""The module with which a type's base class runs the model."""


def parse_base_lists(text: str) -> BaseLists:
    """Read the file of base lists. Raises ValueError saying what is wrong."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"should be TOML: {error}") from None
    for name, held in document.items():
        if not isinstance(held, dict) or not all(isinstance(one, str) and one.strip() for one in held.values()):
            raise ValueError(f'[{name}] should hold lines such as numpy = "numpy": a module and a requirement')
    return document


def default_modules(model_type: str, source: bytes) -> set[str]:
    """Modules that code needs without importing them: those of the base class, if ``_inference`` is left to it."""
    module = _DEFAULT_INFERENCE.get(model_type.lower())
    return (
        {module} if module is not None and b"def _inference" not in source and b"def inference" not in source else set()
    )


def from_base_list(
    missing: Collection[str], lists: BaseLists, model_type: str, runtime: Runtime
) -> tuple[list[str], list[str]]:
    """The requirements that bring ``missing`` modules to a model of this type, and the modules nothing brings."""
    known = dict(lists.get(EVERY_TYPE, {}))
    for name, held in lists.items():
        if name.lower() == model_type.lower():
            known |= held
    found = {module: known.get(module.partition(".")[0]) for module in sorted(missing)}
    requirements = dict.fromkeys(runtime.pin(one) for one in found.values() if one is not None)
    return list(requirements), [module for module, one in found.items() if one is None]
