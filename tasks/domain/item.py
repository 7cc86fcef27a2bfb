"""One input file of a run."""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN_SIZE = -1


class Item(NamedTuple):
    """One input file, as the plan holds it.

    ``number`` counts from 0 in input order. ``source`` is exactly the text in the output manifest; ``address`` is that
    of its bytes (empty if it could not be determined). ``size`` is in bytes, -1 if the listing does not have it.
    ``result_name`` is the result file's path below the result folder. ``error`` is not empty if the item is already
    FAILED, before anything was read. ``version`` distinguishes the listed object from another one of the same size; it
    is 0 if the listing has no version.
    """

    number: int
    source: str
    address: str
    size: int
    result_name: str
    error: str
    version: int = 0
