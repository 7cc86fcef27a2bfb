"""Rows of a request with `auto`, against played models: no clock, no network."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.rows_per_request import FIRST, LARGEST_BYTES, LONGEST_SECONDS, MOST, PROBE_ANSWERS, AutoRows


def play(
    request_seconds: float, row_seconds: float, *, answers: int = 200, in_flight: int = 8, row_bytes: int = 40,
    noise: float = 0.0, auto: AutoRows | None = None,
) -> AutoRows:  # fmt: skip
    """A model that takes so long for a request and for each row of it, and works on one request at a time."""
    auto = auto or AutoRows()
    draw = random.Random(5)
    for _ in range(answers):
        rows = auto.size
        seconds = in_flight * (request_seconds + row_seconds * rows) * draw.uniform(1 - noise, 1 + noise)
        auto.answered(rows, rows * row_bytes, seconds, in_flight)
    return auto


def test_size__starts_small() -> None:
    assert AutoRows().size == FIRST


@pytest.mark.parametrize("noise", [0.0, 0.02])
@pytest.mark.parametrize(
    ("request_seconds", "row_seconds", "least", "most"),
    [
        (100e-6, 2e-6, 200, MOST),  # what a request costs is much
        (5e-3, 1e-3, 16, 128),
        (0.0, 1e-3, FIRST, FIRST),  # nothing is gained
        (0.05, 0.0, 16, MOST),  # a request costs the same whatever is in it
    ],
)
def test_size__grows_as_long_as_a_row_costs_less(
    request_seconds: float, row_seconds: float, least: int, most: int, noise: float
) -> None:
    auto = play(request_seconds, row_seconds, noise=noise)
    assert least <= auto.size <= most
    # What could still be gained is at most a tenth of what a row costs.
    if auto.size < MOST and request_seconds + row_seconds * auto.size < LONGEST_SECONDS / 16:
        assert request_seconds / auto.size <= 0.11 * (request_seconds / auto.size + row_seconds)


def test_size__does_not_matter_how_many_requests_there_are_at_once() -> None:
    assert play(1e-4, 1e-5, in_flight=1).size == play(1e-4, 1e-5, in_flight=7).size == 256


@pytest.mark.parametrize("row_seconds", [0.01, 0.1, 2.0])
def test_size__keeps_the_answer_from_taking_too_long(row_seconds: float) -> None:
    auto = AutoRows()
    auto.answered(4, 100, 0.5 + 4 * row_seconds, 1)  # the first rows, tried both ways
    assert auto.size == (FIRST if row_seconds < 1 else 4)
    play(0.5, row_seconds, in_flight=1, auto=auto)
    assert auto.size in (4, FIRST) or 0.5 + row_seconds * auto.size <= 2 * LONGEST_SECONDS


def test_size__keeps_requests_from_getting_too_large() -> None:
    assert play(0.01, 1e-6, row_bytes=20_000).size * 20_000 <= LARGEST_BYTES


def test_size__is_halved_where_the_model_takes_no_more() -> None:
    auto = play(0.01, 1e-6)
    assert auto.size == MOST
    auto.too_many(64)
    assert auto.size == MOST  # so many were answered already: it may have been a passing fault
    auto.too_many(64)
    assert auto.size == 32
    play(0.01, 1e-6, answers=PROBE_ANSWERS - 1, auto=auto)
    assert auto.size == 32
    play(0.01, 1e-6, answers=20, auto=auto)
    assert auto.size == 64  # the model may take more by now
    for _ in range(20):
        auto.too_many(auto.size)
    assert auto.size == 1


def test_size__survives_faults_that_pass() -> None:
    auto = play(0.01, 1e-6)
    for _ in range(50):
        auto.too_many(auto.size)
        play(0.01, 1e-6, answers=3, auto=auto)
    assert auto.size == MOST


def test_size__larger_ones_are_tried_again_from_time_to_time() -> None:
    auto = play(0.0, 1e-3)
    assert auto.size == FIRST
    play(5e-3, 1e-4, answers=2 * PROBE_ANSWERS, auto=auto)  # the model has changed
    assert auto.size >= 64


answers = st.tuples(
    st.integers(1, MOST), st.integers(0, 1 << 24), st.floats(0, 1e4), st.integers(0, 300), st.booleans(), st.booleans()
)


@given(st.lists(answers, max_size=200))
def test_size__whatever_happens_lies_between_1_and_the_most(
    happened: list[tuple[int, int, float, int, bool, bool]],
) -> None:
    auto = AutoRows()
    for rows, size, seconds, in_flight, own, failed in happened:
        rows = auto.size if own else rows
        if failed:
            auto.too_many(rows)
        else:
            auto.answered(rows, size, seconds, in_flight)
        assert 1 <= auto.size <= auto.most <= MOST
