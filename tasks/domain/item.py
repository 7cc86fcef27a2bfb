"""One input file of a run."""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN_SIZE = -1


class Item(NamedTuple):
    """One input file, as the plan holds it.

    ``number`` counts from 0 in input order. ``source`` is what the output manifest says of it, to the letter;
    ``address`` is where its bytes are (empty if that could not be told). ``size`` is in bytes, -1 if the listing does
    not know it. ``result_name`` is the result file's path below the result folder. ``error`` is not empty if the item
    is FAILED already, before anything was read. ``version`` tells the object that was listed from another one of its
    size, 0 where the listing tells nothing.
    """

    number: int
    source: str
    address: str
    size: int
    result_name: str
    error: str
    version: int = 0
