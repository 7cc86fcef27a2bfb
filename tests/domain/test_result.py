"""Outcomes, and the tally of many."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.result import (
    CAUSE_SHOWN,
    CAUSES_KEPT,
    CAUSES_SHOWN,
    NOTES_KEPT,
    Outcome,
    Tally,
    cause_of,
    not_processed,
    rows_message,
)


def outcome(message: str = "", rows: int = 0, failed_rows: int = 0, read: int = 0, written: int = 0) -> Outcome:
    return Outcome(0, "s", "r", message, not message, rows, failed_rows, read, written)


outcomes = st.builds(
    outcome, st.sampled_from(["", "", "bad 1", "bad 2", "worse"]), st.integers(0, 9), st.integers(0, 9),
    st.integers(0, 10**12), st.integers(0, 10**12),
)  # fmt: skip
seconds = st.floats(0, 10_000)


def tally_of(drawn: list[Outcome], latencies: list[float]) -> Tally:
    tally = Tally()
    for one in drawn:
        tally.add(one)
    for one in latencies:
        tally.request(one)
    return tally


def test_tally__counts_items_rows_bytes_and_requests() -> None:
    tally = tally_of([outcome(read=10, written=5), outcome("no", 4, 2, 7, 1), outcome(rows=3)], [0.1, 0.2])
    assert (tally.successful, tally.failed, tally.rows, tally.failed_rows) == (2, 1, 7, 2)
    assert (tally.bytes_read, tally.bytes_written, tally.requests) == (17, 6, 2)
    assert [(one["cause"], one["items"]) for one in tally.top_causes()] == [("no", 1)]


def test_tally__an_item_without_a_message_is_successful() -> None:
    tally = tally_of([outcome(), outcome("no"), outcome()], [])
    assert (tally.successful, tally.failed) == (2, 1)


@given(st.lists(st.tuples(st.lists(outcomes, max_size=6), st.lists(seconds, max_size=6)), max_size=5))
def test_tally__the_tallies_of_shards_add_up_to_that_of_the_run(parts: list[tuple[list[Outcome], list[float]]]) -> None:
    whole = tally_of([one for drawn, _ in parts for one in drawn], [one for _, latencies in parts for one in latencies])
    merged = Tally().merge(tally_of(drawn, latencies) for drawn, latencies in parts)
    assert merged.to_json() == whole.to_json() | {"causes": merged.to_json()["causes"]}
    assert merged.causes == whole.causes
    assert merged.latencies == whole.latencies


@given(st.lists(outcomes, max_size=8), st.lists(seconds, max_size=8), st.integers(0, 5))
def test_tally__json_and_back_is_the_same_tally(drawn: list[Outcome], latencies: list[float], retries: int) -> None:
    tally = tally_of(drawn, latencies)
    tally.retries = retries
    tally.note("rows were sent alone")
    back = Tally.from_json(json.loads(json.dumps(tally.to_json())))
    assert vars(back) == vars(tally)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.5, 2.0])
def test_tally__percentiles_are_right_to_5_percent(share: float, spread: float) -> None:
    draw = random.Random(7)
    latencies = [draw.lognormvariate(-3, spread) for _ in range(3_000)]
    exact = sorted(latencies)[math.ceil(share * len(latencies)) - 1] * 1000
    found = tally_of([], latencies).percentile_ms(share)
    assert found == pytest.approx(exact, rel=0.05)


@given(st.lists(st.floats(1e-5, 10_000), min_size=1, max_size=50), st.sampled_from([0.5, 0.9, 0.99, 1.0]))
def test_tally__the_percentile_of_any_latencies_is_right_to_5_percent(latencies: list[float], share: float) -> None:
    exact = sorted(latencies)[math.ceil(share * len(latencies)) - 1] * 1000
    assert tally_of([], latencies).percentile_ms(share) == pytest.approx(exact, rel=0.05, abs=0.0006)


def test_tally__no_requests_have_no_percentile() -> None:
    assert Tally().percentile_ms(0.5) is None


def test_tally__a_latency_of_nothing_is_counted() -> None:
    tally = tally_of([], [0.0, -1.0])
    assert tally.requests == 2
    assert tally.percentile_ms(1.0) == pytest.approx(0.001, abs=0.001)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The file has 12582913 bytes; it should be smaller.", "The file has 99 bytes; it should be smaller."),
        ('line 3, column 1, field x: "abc" is not a number', 'line 17, column 1, field x: "d\\"e" is not a number'),
        ("3 of 150 rows failed, first: row 17: no", "2 of 9 rows failed, first: row 1: no"),
    ],
)
def test_cause__leaves_out_what_differs_from_item_to_item(one: str, other: str) -> None:
    assert cause_of(one) == cause_of(other)


def test_cause__keeps_what_tells_causes_apart() -> None:
    assert cause_of("Download file failed. No such file.") != cause_of("Download file failed. No permission.")
    assert cause_of("The model answered HTTP 503 (tried 6 times)") != cause_of(
        "The model answered HTTP 500 (tried 6 times)"
    )
    assert len(cause_of("x" * 10_000)) == CAUSE_SHOWN + 3


def test_causes__the_most_frequent_come_first_and_not_too_many() -> None:
    tally = tally_of([outcome(f"cause {'x' * length}") for length in range(20) for _ in range(length + 1)], [])
    top = tally.top_causes()
    assert len(top) == CAUSES_SHOWN
    assert [cause["items"] for cause in top] == list(range(20, 20 - CAUSES_SHOWN, -1))
    assert top[0]["cause"] == "cause " + "x" * 19


def test_causes__are_bounded_in_number_but_every_failure_is_counted() -> None:
    tally = tally_of(
        [outcome("y" * length) for length in range(1, 150)] + [outcome("z" * length) for length in range(1, 150)], []
    )
    assert len(tally.causes) == CAUSES_KEPT
    assert tally.failed == 298
    tally.add(outcome("y"))
    assert tally.causes["y"] == 2


@pytest.mark.parametrize(
    ("rows", "failed", "first", "message"),
    [(150, 3, "row 17: no", "3 of 150 rows failed, first: row 17: no"),
     (1, 1, "row 1: no", "1 of 1 row failed, first: row 1: no")],
)  # fmt: skip
def test_rows_message__says_how_many_rows_failed_and_which_was_the_first(
    rows: int, failed: int, first: str, message: str
) -> None:
    assert rows_message(rows, failed, first) == message


def test_tally__keeps_notes_once_but_not_without_end() -> None:
    one, other = Tally(), Tally()
    for number in range(NOTES_KEPT + 5):
        one.note(f"note {number}")
    other.note("note 1")
    merged = Tally().merge([one, other, other.requests_only()])
    assert [*merged.notes] == [f"note {number}" for number in range(NOTES_KEPT)]


def test_causes__are_grouped_by_shape_and_shown_as_one_of_them_with_its_item() -> None:
    shards = []
    for number in range(3):
        tally = Tally()
        for item in range(number, 9, 3):
            message = (
                f'row {item}: "v{item}" is not a number' if item % 2 else 'The model answered {"error": "no UTF-8"}'
            )
            tally.add(Outcome(item, f"https://host/{item}.csv?Signature=SECRET", "r", message, False))
        shards.append(Tally.from_json(json.loads(json.dumps(tally.to_json()))))
    found = Tally().merge(shards).top_causes()
    assert [one["items"] for one in found] == [5, 4]
    assert found[0]["cause"] == 'The model answered {"error": "no UTF-8"}'
    assert found[1]["cause"] == 'row 3: "v3" is not a number'
    assert [one["item"] for one in found] == ["https://host/0.csv?...", "https://host/3.csv?..."]


def test_not_processed__says_the_first_and_the_last_line_of_why() -> None:
    assert not_processed("The server is away.") == "Not processed: The server is away."
    printed = "It ended with status 1. It printed last:\n    Traceback\n    KeyError: 'x'\n"
    assert not_processed(printed) == "Not processed: It ended with status 1. It printed last: KeyError: 'x'"
    assert not_processed("x" * 10_000).endswith("x...") and len(not_processed("x" * 10_000)) < 1_000


@pytest.mark.parametrize(
    ("message", "final", "counted"),
    [
        (not_processed("it is away"), False, 1),
        ("The run was stopped before it was processed.", False, 1),
        ("The model answered HTTP 500", False, 0),
        (not_processed("said a model"), True, 0),
    ],
)
def test_tally__counts_what_was_never_sent_apart(message: str, final: bool, counted: int) -> None:
    tally = Tally()
    tally.add(outcome(message)._replace(final=final))
    assert (tally.failed, tally.not_processed) == (1, counted)
    assert Tally.from_json(json.loads(json.dumps(tally.to_json()))).not_processed == counted


def test_tally__of_a_report_that_counted_nothing_apart_is_read() -> None:
    old = {name: value for name, value in Tally().to_json().items() if name != "not_processed"}
    assert Tally.from_json(old).not_processed == 0
