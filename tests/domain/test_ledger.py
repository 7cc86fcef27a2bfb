"""Claims and finds, counted against each other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.ledger import Ledger

files = st.dictionaries(st.text(max_size=3), st.integers(0, 5), max_size=30)


@given(files, files)
def test_ledger__doubts_all_that_is_not_found_as_it_was_claimed(claimed: dict[str, int], found: dict[str, int]) -> None:
    ledger = Ledger()
    ledger.claim(claimed.items())
    ledger.found(reversed(found.items()))
    assert ledger.balanced == (claimed == found)
    assert all(ledger.doubts(name) for name, size in claimed.items() if found.get(name) != size)


def test_ledger__of_many_files_doubts_few_besides_the_wrong_one() -> None:
    claimed = [(f"{number:06d}.jpg_result.txt", number) for number in range(100_000)]
    ledger = Ledger()
    ledger.claim(claimed)
    ledger.found(one for one in claimed if one[1] != 500)
    doubtful = [size for name, size in claimed if ledger.doubts(name)]
    assert 500 in doubtful
    assert len(doubtful) < 200
