"""Folders of this machine with many files: their order, and what listing them costs."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clients.storage import local_files
from tasks.clients.storage.local_files import PACK_NAMES, PART_NAMES

_names = st.lists(st.binary(min_size=1, max_size=4).filter(lambda name: b"\0" not in name), unique=True)


@given(_names, st.integers(1, 7), st.integers(1, 4))
@settings(max_examples=300, deadline=None, derandomize=True, database=None)
def test_names__of_any_number_are_sorted(names: list[bytes], part: int, pack: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_files, "PART_NAMES", part)
        patch.setattr(local_files, "PACK_NAMES", pack)
        assert [*local_files._sorted(iter(names))] == sorted(names)


def test_names__of_a_big_folder_take_little_more_memory_than_their_letters() -> None:
    count, letters = 200_000, 20
    order = random.Random(1).sample(range(count), count)

    def names() -> Iterator[bytes]:
        for number in order:
            yield b"%0*d" % (letters, number)

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        last = b""
        for name in local_files._sorted(names()):
            assert name > last
            last = name
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    # The packed names; what is sorted at once, or what is unpacked of each part; and of both as much as a name costs.
    assert peak < count * (letters + 2) + (PART_NAMES + PACK_NAMES * count / PART_NAMES) * 120
    assert last == b"%0*d" % (letters, count - 1)


def test_walk__asks_for_sizes_in_their_turn_and_keeps_the_order(tmp_path: Path) -> None:
    expected = []
    for name, size in (("a", 1), ("a-", 2), ("a/b", 3), ("a0", 4), ("b/c/d", 5), ("b.c", 6)):
        if name == "a":
            continue  # a file and a folder of one name do not go together on a disk
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        expected.append((name, size))
    expected.sort(key=lambda one: one[0].encode())
    walking = local_files.walk(str(tmp_path))
    assert next(walking) == expected[0]
    # What goes away meanwhile is an item that fails, not the end of the listing; what grows has its size of then.
    os.unlink(tmp_path / "b.c")
    (tmp_path / "a0").write_bytes(b"x" * 40)
    left = {"b.c": -1, "a0": 40}
    assert [*walking] == [(name, left.get(name, size)) for name, size in expected[1:]]
