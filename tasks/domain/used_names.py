"""A set of taken names, in 12 to 24 bytes per name of any length."""

from __future__ import annotations

from array import array

_SLOTS = 1 << 10
_WORD = (1 << 64) - 1


class UsedNames:
    """Whether names were taken before.

    Only hashes of 64 bits are kept, in a table with open addressing: a set of them would take some 70 bytes per name. A
    taken name is never reported as free. If two names have the same hash, the second is reported as taken: once in ten
    million runs of a million items. This cannot be provoked, since Python's hashes differ by process.
    """

    def __init__(self) -> None:
        self._table = array("Q", [0]) * _SLOTS  # 0: an empty slot
        self._names = 0

    def __len__(self) -> int:
        return self._names

    def __contains__(self, name: str) -> bool:
        return self._table[_slot(self._table, hash(name) & _WORD or 1)] != 0

    def take(self, name: str) -> bool:
        """Take a name; False if it was already taken."""
        return self.take_hash(hash(name))

    def take_hash(self, number: int) -> bool:
        """As :meth:`take`, with a name's hash: only the last 64 bits of a number count, and 0 counts as 1."""
        word = number & _WORD or 1
        slot = _slot(self._table, word)
        if self._table[slot]:
            return False
        self._table[slot] = word
        self._names += 1
        if self._names * 3 > len(self._table) * 2:
            self._grow()
        return True

    def _grow(self) -> None:
        grown = array("Q", [0]) * (2 * len(self._table))
        for word in self._table:
            if word:
                grown[_slot(grown, word)] = word
        self._table = grown


def _slot(table: array[int], word: int) -> int:
    """The slot of a word in a table, or the one where it belongs."""
    mask = len(table) - 1
    slot = word & mask
    while (held := table[slot]) and held != word:
        slot = (slot + 1) & mask
    return slot
