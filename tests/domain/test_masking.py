from __future__ import annotations

import base64
import html
import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.masking import MASK, SECRET_LENGTH, Masker, masked
from tasks.domain.plain_text import plain_line

SECRET = st.text(st.characters(exclude_characters="*\0", exclude_categories=["Cs"]), min_size=SECRET_LENGTH)
PASSWORD = "Sup3r-Secret/Pw+é"


@pytest.mark.parametrize(
    ("secrets", "text", "shown"),
    [
        ((), "nothing to hide", "nothing to hide"),
        (("opensesame",), "it is opensesame, opensesame!", "it is ***, ***!"),
        (("open", "opensesame"), "opensesame open", "*** ***"),
        (("abc",), "abc stays: too short", "abc stays: too short"),
        (("true", "None"), "true or None", "true or None"),
        (("first line\nsecond line",), "  first line\\n", "  ***\\n"),
        (("first line\nsecond line",), "first line\nsecond line", "***"),
        (("käse123",), "ein käse123", "ein ***"),
        (("p@ss w/rd",), "p%40ss%20w%2Frd p%40ss+w%2frd p%40ss%20w/rd", "*** *** ***"),
        (('say "käse"',), 'x=say \\"käse\\" y=say \\"k\\u00E4se\\"', "x=*** y=***"),
        (("abcdef", "defghi"), "abcdefghi abcabcdef", "*** abc***"),
    ],
)
def test_masker__hides_secrets(secrets: tuple[str, ...], text: str, shown: str) -> None:
    assert Masker(secrets).block(text) == shown


@pytest.mark.parametrize(
    "printed",
    [
        "Sup3r\x1b[31m-Secret/Pw+é",
        "Sup3r-\x00Secret/Pw+é", "Sup3r-Se\u202ecret/Pw+é", "Sup3r-Se\u200bcret/Pw+é",
        "Sup3r-Se\u200dcret/Pw+é", "Sup3r-SX\becret/Pw+é", "Sup3r-\x1b]0;title\x07Secret/Pw+é",
        "Sup3r-\x9b1mSecret/Pw+é",
        "Sup3r-Sec\n   ret/Pw+é", "Sup3r-Sec\r\nret/Pw+é", "Sup3r-Sec\u2028ret/Pw+é",
        quote(PASSWORD), quote(PASSWORD, safe=""), quote(PASSWORD).replace("%2B", "%2b").replace("%C3%A9", "%c3%a9"),
        json.dumps(PASSWORD), json.dumps(PASSWORD).replace("/", "\\/"), html.escape(PASSWORD),
        repr(PASSWORD), ascii(PASSWORD),
    ],
)  # fmt: skip
def test_masker__finds_a_secret_however_it_is_written(printed: str) -> None:
    shown = Masker([PASSWORD]).block(f"before {printed} after")
    assert MASK in shown
    assert "ecret" not in shown
    assert shown.startswith("before") and shown.endswith("after")


@pytest.mark.parametrize("user", ["", "u", "us", "use", "user"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_masker__finds_a_secret_in_base64(user: str, encode: object) -> None:
    whole = encode(f"{user}:{PASSWORD}:end".encode()).decode()  # type: ignore[operator]
    shown = Masker([PASSWORD]).line(f"token {whole}")
    kept = shown.removeprefix("token ").split(MASK)
    assert len(kept) == 2
    assert sum(map(len, kept)) <= len(whole) - len(PASSWORD)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://app:pw@db/x", "postgres://app:***@db/x"),
        ("redis://:pw@h:1", "redis://:***@h:1"),
        ("https://h/o?X-Amz-Signature=abc&x=1", "https://h/o?X-Amz-Signature=***&x=1"),
        ("https://h/o?x=1&password=abc", "https://h/o?x=1&password=***"),
        ("Authorization: Basic dXNlcjpwYXNzd29yZA==", "Authorization: Basic ***"),
        ("Bearer eyJhbGciOi.eyJzdWIi-", "Bearer ***"),
        ("Basic understanding of http://host:80/a@b", "Basic understanding of http://host:80/a@b"),
    ],
)
def test_masked__hides_what_looks_like_a_secret(text: str, shown: str) -> None:
    assert masked(text) == shown


@given(secrets=st.lists(SECRET.map(plain_line).map(str.strip)), between=st.text())
def test_masker__leaves_no_secret(secrets: list[str], between: str) -> None:
    secrets = [one for one in secrets if len(one) >= SECRET_LENGTH and one.lower() not in ("true", "null")]
    masker = Masker(secrets)
    shown = masker.line(between.join(secrets))
    assert all(one not in shown for one in secrets)
    assert masker.longest >= max(map(len, secrets), default=0)


def test_masker__cuts_before_a_secret_that_may_go_on() -> None:
    masker = Masker(["opensesame"])
    text = "a text that goes on and ends in opense"
    cut = masker.cut(text)
    assert cut <= len(text) - len("opense")
    assert masker.line(text[:cut]) + masker.line(text[cut:] + "same") == "a text that goes on and ends in ***"
