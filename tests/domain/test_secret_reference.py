"""References to Secret blocks: what the model server is given, and what of it is secret."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tasks.domain.masking import Masker
from tasks.domain.secret_reference import resolved

REFERENCE = "{{ prefect.blocks.secret.db }}"


@pytest.mark.parametrize(
    ("value", "given", "secrets"),
    [
        ("hunter22", "hunter22", ["hunter22"]),
        ("1.10", "1.10", ["1.10"]),
        ("{not json", "{not json", ["{not json"]),
        (1234, "1234", ["1234"]),
        (True, "true", ["true"]),
        ({"user": "ü", "deep": [{"password": "pässword"}, 1, None]},
         '{"user": "ü", "deep": [{"password": "pässword"}, 1, null]}', ["ü", "pässword"]),
        ('{"password":"pw-of-text"}', '{"password":"pw-of-text"}', ["pw-of-text"]),
        (["first-one", ["second-one"]], '["first-one", ["second-one"]]', ["first-one", "second-one"]),
    ],
)  # fmt: skip
def test_resolved__gives_text_or_json_and_every_part_that_is_secret(value: Any, given: str, secrets: list[str]) -> None:
    found = resolved({"DB": REFERENCE}, {"db": value}, ["DB"])
    assert found.values == {"DB": given}
    assert {given, *secrets} == set(found.secrets)
    if isinstance(value, (dict, list)):
        assert json.loads(given) == value


def test_resolved__the_value_of_a_block_is_secret_wherever_it_stands() -> None:
    dsn = f"postgres://u:{REFERENCE}@h/db"
    found = resolved({"DSN": dsn, "MY_KEY": "plain-key", "MODE": "visible"}, {"db": "hunter/22"}, ["DSN", "MY_KEY"])
    assert found.values == {"DSN": "postgres://u:hunter/22@h/db", "MY_KEY": "plain-key", "MODE": "visible"}
    printed = "postgres://u:hunter/22@h/db hunter/22 hunter%2F22 plain-key visible"
    assert Masker(found.secrets).line(printed) == "*** *** *** *** visible"
    assert "hunter" not in repr(found)
