"""HTTP headers that a service gives to the requests to its model server."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tasks.domain.errors import SpecificationError
from tasks.domain.headers import header_texts, plain_text_secrets, resolved_headers, secrets_of

SECRET = "hunter2-in-plain-text"
REFERENCE = "{{ prefect.blocks.secret.model-key }}"


@pytest.mark.parametrize(
    ("given", "texts"),
    [
        ({"X-Tenant": "acme"}, {"X-Tenant": "acme"}),
        ({"x": 7}, {"x": "7"}),
        ({"X": " \t a b\u00e9 \r\n"}, {"X": "a b\u00e9"}),
        ({"X": ""}, {"X": ""}),
        ({"Host": "model.example"}, {"Host": "model.example"}),
        ({"Authorization": f"Bearer {REFERENCE}"}, {"Authorization": f"Bearer {REFERENCE}"}),
    ],
)
def test_headers__are_texts_without_blanks_around_them(given: dict[str, Any], texts: dict[str, str]) -> None:
    assert header_texts(given) == texts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *[({name: SECRET}, f"{name} cannot be given") for name in (
            "Content-Length", "transfer-encoding", "CONNECTION", "Content-Type", "Accept-Encoding", "Expect", "TE",
            "Trailer", "Upgrade", "Keep-Alive", "Content-Encoding",
        )],
        ({f"Authorization: {SECRET}": ""}, "Authorization... is not a header's name"),
        ({f"X Key {SECRET}": ""}, "X... is not a header's name"),
        ({"": SECRET}, "is not a header's name"),
        ({"\u00e9": SECRET}, "a name is not a header's name"),
        ({"X-A": SECRET, "x-a": SECRET}, "x-a stands twice"),
        ({"X": f"{SECRET}\r\nY: z"}, "the value of X should have no line break"),
        ({"X": f"{SECRET}\0"}, "the value of X should have no line break and no other control character"),
        ({"X": f"{SECRET}\u4e2d"}, "the value of X should have Latin-1 characters only"),
        ({"X": [SECRET]}, "the value of X should be text"),
        ({"X": None}, "the value of X should be text"),
        ({"X": True}, "the value of X should be text"),
    ],
)  # fmt: skip
def test_headers__that_cannot_be_sent_are_refused_by_name_without_their_value(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        header_texts(given)
    assert said in str(raised.value)
    assert SECRET not in str(raised.value)


def test_references__become_the_values_of_their_blocks_without_blanks_around_them() -> None:
    headers = {"Authorization": f"Bearer {REFERENCE}", "X-Pair": f"{REFERENCE}:{REFERENCE}", "X": "as it is"}
    assert resolved_headers(headers, {"model-key": "a-key\n"}) == {
        "Authorization": "Bearer a-key", "X-Pair": "a-key:a-key", "X": "as it is"
    }  # fmt: skip


@pytest.mark.parametrize("value", ["two\nlines", "\u4e2d\u6587", "nul\0"])
def test_block__whose_value_no_header_can_carry_is_refused_by_name(value: str) -> None:
    with pytest.raises(SpecificationError) as raised:
        resolved_headers({"X-Key": REFERENCE}, {"model-key": f"{SECRET}{value}"})
    (problem,) = raised.value.problems
    assert problem.field == "headers.X-Key" and "the Secret block model-key should have" in problem.expected
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "value", "looks_secret"),
    [
        *[(name, SECRET, True) for name in (
            "Authorization", "Proxy-Authorization", "Cookie", "X-Api-Key", "api-key", "X-Auth-Token", "X-Auth",
            "X-Amz-Signature", "X-Session-Id", "PRIVATE-TOKEN",
        )],
        *[(name, "v", False) for name in ("X-Tenant", "Accept", "Host", "User-Agent", "traceparent")],
        ("Authorization", f"Bearer {REFERENCE}", False),
        ("Authorization", "", False),
    ],
)  # fmt: skip
def test_headers__tell_what_looks_like_a_secret_in_plain_text(name: str, value: str, looks_secret: bool) -> None:
    assert plain_text_secrets({"X-Other": "o", name: value}) == ([name] if looks_secret else [])


def test_secrets__are_whole_values_and_each_part_that_is_one_by_itself() -> None:
    basic = base64.b64encode(b"me:my-password").decode()
    found = {*secrets_of({
        "Authorization": "Bearer a-token", "X-Basic": f"basic {basic}", "cookie": "id=one; other=two",
        "X-Tenant": "acme", "Accept": "application/json", "user-agent": "mine",
    })}  # fmt: skip
    assert found == {
        "Bearer a-token", "a-token", f"basic {basic}", basic, "me:my-password", "my-password", "id=one; other=two",
        "one", "two", "acme",
    }  # fmt: skip
