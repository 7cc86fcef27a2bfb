"""The names that are taken already: like a set, but for names of one hash."""

from __future__ import annotations

import sys

from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.used_names import UsedNames


@given(st.lists(st.text(max_size=4)))
def test_used_names__is_a_set(names: list[str]) -> None:
    used, expected = UsedNames(), set()
    for name in names:
        assert (name in used) is (name in expected)
        assert used.take(name) is (name not in expected)
        expected.add(name)
        assert name in used
    assert len(used) == len(expected)


# Few slots, all of them in one place of the table: hashes that differ in their first bits only.
_HASHES = st.integers(-9, 9) | st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(0, 40).map(lambda n: n << 58)


@given(st.lists(_HASHES, max_size=200))
def test_used_names__never_calls_free_what_was_taken(hashes: list[int]) -> None:
    used, expected = UsedNames(), set()
    for number in hashes:
        word = number % (1 << 64) or 1
        assert used.take_hash(number) is (word not in expected)
        expected.add(word)


def test_used_names__grows_without_losing_any_and_stays_small() -> None:
    used = UsedNames()
    count = 50_000
    assert all(used.take(f"{number}.jpg") for number in range(count))
    assert not any(used.take(f"{number}.jpg") for number in range(count))
    assert len(used) == count
    assert sys.getsizeof(used._table) <= 24 * count
