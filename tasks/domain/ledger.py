"""Whether what is claimed is what is there, for a million files in a few hundred KB."""

from __future__ import annotations

from collections.abc import Iterable

PARTS = 1 << 12


class Ledger:
    """Claims and finds, each a name and a size in bytes, in any order; they are counted against each other in parts.

    A part in which all is right sums up to nothing. In the others a few right ones stand beside the wrong: each of them
    is to be looked at.
    """

    def __init__(self) -> None:
        self._sums = [0] * PARTS

    def claim(self, entries: Iterable[tuple[str, int]]) -> None:
        """These are to be there."""
        sums = self._sums
        for entry in entries:
            sums[hash(entry[0]) % PARTS] += hash(entry)

    def found(self, entries: Iterable[tuple[str, int]]) -> None:
        """These are there."""
        sums = self._sums
        for entry in entries:
            sums[hash(entry[0]) % PARTS] -= hash(entry)

    @property
    def balanced(self) -> bool:
        """Whether all that was claimed was found, and nothing else."""
        return not any(self._sums)

    def doubts(self, name: str) -> bool:
        """Whether this one may be missing, or have another size."""
        return self._sums[hash(name) % PARTS] != 0
