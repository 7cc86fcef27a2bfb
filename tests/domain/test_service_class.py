"""Which class of a customize_service.py is the service, from its text alone."""

from __future__ import annotations

import pytest

from tasks.domain.service_class import service_classes

BASE = "from model_service.pytorch_model_service import PTServingBaseService\n"


@pytest.mark.parametrize(
    ("code", "names"),
    [
        (f"{BASE}class A(PTServingBaseService): pass", ["A"]),
        (f"{BASE}class A(PTServingBaseService): pass\nclass B(A): pass", ["B"]),
        (f"{BASE}class A(PTServingBaseService): pass\nclass B(PTServingBaseService): pass", ["A", "B"]),
        ("from model_service import pytorch_model_service as base\nclass A(base.PTServingBaseService): pass", ["A"]),
        ("import mms.model_service.mxnet_model_service as m\nclass A(m.MXNetBaseService): pass", ["A"]),
        ("from model_service.model_service import *\nclass A(SingleNodeService): pass", ["A"]),
        (f"{BASE}class Net:\n  pass\nclass A(PTServingBaseService): pass", ["A"]),
        (f"{BASE}class Wrong(Exception): pass\nclass A(PTServingBaseService): pass", ["A"]),
        (f"try:\n  {BASE}except ImportError:\n  pass\nclass A(PTServingBaseService): pass", ["A"]),
        ("class A: pass", []),
        (f"import torch\n{BASE}class Net(torch.nn.Module): pass\nclass A(PTServingBaseService): pass", ["A"]),
        (f"{BASE}x = 1", []),
        ("class A(B): pass\nclass B(A): pass", []),
        ("x = 1", []),
        # The text alone does not show these.
        ("from base import Base\nclass A(Base): pass", None),
        ("from service import Service", None),
        ("from base import *\nclass A(Base): pass", None),
        ("class A(make()): pass", None),
        ("from model.base import Base\nclass A(Base): pass", None),
        ("from .base import Base\nclass A(Base): pass", None),
    ],
)
def test_service_classes__are_those_below_a_base_class(code: str, names: list[str] | None) -> None:
    found = service_classes(code.encode(), ["base", "service"])
    assert (None if found is None else [one.name for one in found]) == names


def test_service_classes__of_text_that_is_no_code_raise_its_error() -> None:
    with pytest.raises(SyntaxError):
        service_classes(b"print 'python 2'")
    with pytest.raises((SyntaxError, ValueError), match="null bytes"):
        service_classes(b"\0")
