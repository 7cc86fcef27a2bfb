"""Limits of the shell that are too tight are named."""

from __future__ import annotations

import pytest

from tasks.domain.process_limits import FEWEST_FILES, LEAST_MEMORY, tight_limits


@pytest.mark.parametrize(
    ("files", "memory", "said"),
    [
        (None, None, []),
        (FEWEST_FILES, LEAST_MEMORY, []),
        (20, None, ["This process may open 20 files only: raise the limit, `ulimit -n 4096`."]),
        (None, 300 << 20, ["This process may use 300 MiB of memory only: raise the limit, `ulimit -v unlimited`."]),
    ],
)
def test_limits__that_are_too_tight_are_named(files: int | None, memory: int | None, said: list[str]) -> None:
    assert [str(problem) for problem in tight_limits(files, memory)] == said
