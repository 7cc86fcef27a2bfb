"""The runtime of a config.json, as public packages write it."""

from __future__ import annotations

import pytest

from tasks.domain.runtime import parse_runtime


@pytest.mark.parametrize(
    ("text", "python", "frameworks", "accelerator"),
    [
        ("python3.6", (3, 6), {}, False),
        ("python2.7", (2, 7), {}, False),
        ("Python3.10", (3, 10), {}, False),
        ("tf1.13-python3.6-cpu", (3, 6), {"tensorflow": "1.13"}, False),
        ("tf1.13-python3.7-gpu", (3, 7), {"tensorflow": "1.13"}, True),
        ("pytorch1.4-python3.7", (3, 7), {"torch": "1.4"}, False),
        ("pytorch_1.8.0-cuda_10.2-py_3.7-ubuntu_18.04-x86_64", (3, 7), {"torch": "1.8.0"}, True),
        ("tensorflow_2.1.0-cuda_10.1-py_3.7-ubuntu_18.04-x86_64", (3, 7), {"tensorflow": "2.1.0"}, True),
        ("mindspore_1.7.0-cpu-py_3.7-ubuntu_18.04-x86_64", (3, 7), {"mindspore": "1.7.0"}, False),
        ("mindspore_1.10.0-cann_6.0.1-py_3.7-euler_2.8.3-aarch64", (3, 7), {"mindspore": "1.10.0"}, True),
        ("xgboost1.3-python3.6", (3, 6), {"xgboost": "1.3"}, False),
        ("pytorch", None, {}, False),
        ("", None, {}, False),
        (None, None, {}, False),
    ],
)
def test_runtime__names_python_framework_and_machine(
    text: str | None, python: tuple[int, int] | None, frameworks: dict[str, str], accelerator: bool
) -> None:
    runtime = parse_runtime(text)
    assert (runtime.python, runtime.frameworks, runtime.accelerator) == (python, frameworks, accelerator)


def test_runtime__pins_the_framework_that_it_names() -> None:
    runtime = parse_runtime("pytorch_1.8.0-cuda_10.2-py_3.7-ubuntu_18.04-x86_64")
    assert (runtime.pin("torch"), runtime.pin("numpy"), runtime.python_text) == ("torch==1.8.*", "numpy", "3.7")
