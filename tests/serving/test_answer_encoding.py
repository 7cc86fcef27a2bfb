"""Answers as bytes, without a process."""

from __future__ import annotations

import datetime
import enum
import json
import uuid
from dataclasses import dataclass
from typing import Any

import pytest

from infra.serving.builtin_server.encoding import encode_answer


class Array:
    """What numpy arrays, PyTorch tensors and pandas series have in common."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def tolist(self) -> Any:
        return self.values


class Scalar:
    """What every number type has in common; can be a key of a dict, as numpy's can."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def item(self) -> Any:
        return self.value


class Tensor:
    """What TensorFlow's tensors offer."""

    def numpy(self) -> Array:
        return Array([1.5])


class Kind(enum.Enum):
    CAT = "cat"


@dataclass
class Box:
    left: int
    kind: Kind


class Half(float):
    """A float that is none to JSON writers that look at the exact type."""


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ({"a": [1, 2.5, None, True]}, {"a": [1, 2.5, None, True]}),
        (None, None),
        ([], []),
        ({"scores": Array([[0.5, 0.25]])}, {"scores": [[0.5, 0.25]]}),
        (Scalar(3), 3),
        (Tensor(), [1.5]),
        (Half(0.5), 0.5),
        ({"label": b"cat"}, {"label": "cat"}),
        ({"raw": b"\xff\x00"}, {"raw": "/wA="}),
        ({"set": {3, 1, 2}}, {"set": [1, 2, 3]}),
        ({"mixed": frozenset(["b", 1])}, {"mixed": ["b", 1]}),
        ({"at": datetime.datetime(2024, 5, 6, 7, 8, 9)}, {"at": "2024-05-06T07:08:09"}),
        ({"on": datetime.date(2024, 5, 6)}, {"on": "2024-05-06"}),
        ({"box": Box(1, Kind.CAT)}, {"box": {"left": 1, "kind": "cat"}}),
        ({"id": uuid.UUID(int=1)}, {"id": "00000000-0000-0000-0000-000000000001"}),
        ({1: "a", 2: "b"}, {"1": "a", "2": "b"}),
        ((1, (2, 3)), [1, [2, 3]]),
        ({"nan": float("nan"), "inf": float("-inf")}, {"nan": None, "inf": None}),
        ({"nan": Array([float("nan")])}, {"nan": [None]}),
    ],
)
def test_answer__becomes_json(answer: Any, expected: Any) -> None:
    content_type, body = encode_answer(answer)
    assert content_type == "application/json"
    assert json.loads(body) == expected


@pytest.mark.parametrize("rare", [{Scalar(7): "seven"}, {"big": 2**70}, {"broken": "a\udc80"}, {b"key": 1}])
def test_answer__with_something_rare_loses_nothing_else(rare: dict[Any, Any]) -> None:
    everything = {
        "nan": float("nan"),
        "array": Array([Scalar(1.5), float("inf")]),
        "set": {2, 1},
        "box": Box(1, Kind.CAT),
        "id": uuid.UUID(int=1),
        "at": datetime.date(2024, 5, 6),
        "text": "Köln 图",
        "bytes": b"\xff",
    }
    content = json.loads(encode_answer({**everything, **rare})[1])
    expected_rare = {"seven": "7"} if "seven" in rare.values() else None
    for key, value in json.loads(encode_answer(everything)[1]).items():
        assert content[key] == value
    if expected_rare:
        assert content["7"] == "seven"
    elif "big" in rare:
        assert content["big"] == 2**70
    elif "broken" in rare:
        assert content["broken"] == "a\udc80"
    else:
        assert content["key"] == 1


def test_answer__is_compact_utf_8() -> None:
    assert encode_answer({"a": [1, 2], "b": "图"})[1] == '{"a":[1,2],"b":"图"}'.encode()


@pytest.mark.parametrize(
    ("answer", "content_type", "body"),
    [
        ("Köln", "text/plain; charset=utf-8", "Köln".encode()),
        ('{"already": "json"}', "text/plain; charset=utf-8", b'{"already": "json"}'),
        ("a\udc80", "text/plain; charset=utf-8", b"a\\udc80"),
        (b"\x89PNG", "application/octet-stream", b"\x89PNG"),
        (bytearray(b"\x00"), "application/octet-stream", b"\x00"),
        (memoryview(b"\x01"), "application/octet-stream", b"\x01"),
    ],
)
def test_text_and_bytes__are_sent_as_they_are(answer: Any, content_type: str, body: bytes) -> None:
    assert encode_answer(answer) == (content_type, body)


def test_answer__that_has_no_json_is_refused_naming_its_place() -> None:
    with pytest.raises(TypeError, match=r"answer\['rows'\]\[1\]: object cannot be sent as JSON; convert it"):
        encode_answer({"rows": [1, object()]})
    with pytest.raises(TypeError, match="a key of answer: tuple cannot be a key"):
        encode_answer({(1, 2): 3})


def test_answer__that_contains_itself_is_an_error_and_not_a_crash() -> None:
    answer: list[Any] = []
    answer.append(answer)
    with pytest.raises(RecursionError):
        encode_answer(answer)
