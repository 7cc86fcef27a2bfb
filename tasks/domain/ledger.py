"""A comparison of expected files with those found, for a million files in a few hundred KB."""

from __future__ import annotations

from collections.abc import Iterable

PARTS = 1 << 12


class Ledger:
    """Balances expected files against those found, each a name and a size in bytes, in any order, in hashed parts.

    A part without differences sums up to zero. The others hold correct files next to wrong ones: each of these must be
    examined.
    """

    def __init__(self) -> None:
        self._sums = [0] * PARTS

    def claim(self, entries: Iterable[tuple[str, int]]) -> None:
        """Add files that are expected."""
        sums = self._sums
        for entry in entries:
            sums[hash(entry[0]) % PARTS] += hash(entry)

    def found(self, entries: Iterable[tuple[str, int]]) -> None:
        """Add files that were found."""
        sums = self._sums
        for entry in entries:
            sums[hash(entry[0]) % PARTS] -= hash(entry)

    @property
    def balanced(self) -> bool:
        """Whether all expected files were found, and no others."""
        return not any(self._sums)

    def doubts(self, name: str) -> bool:
        """Whether this file may be missing, or have another size."""
        return self._sums[hash(name) % PARTS] != 0
