"""What a command prints, bounded on its way into the log."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.clients.processes import output_drain
from tasks.clients.processes.output_drain import READ_BYTES, TAIL_BYTES, Drain

BURST = 1 << 20


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [1000.0]
    monkeypatch.setattr(output_drain.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(output_drain, "BURST_BYTES", BURST)
    return clock


@pytest.fixture
def drain(tmp_path: Path, now: list[float]) -> Iterator[Drain]:
    made = Drain(str(tmp_path / "log"), bytes_per_second=BURST)
    yield made
    os.close(made.descriptor)
    os.close(made._file)


def written(drain: Drain, data: bytes) -> None:
    """Print this through the pipe, which is read whenever it is full."""
    os.set_blocking(drain.write_end, False)
    while data:
        try:
            data = data[os.write(drain.write_end, data) :]
        except BlockingIOError:
            drain.take()
    while drain.take():
        pass


def log(tmp_path: Path) -> bytes:
    return (tmp_path / "log").read_bytes()


def test_drain__writes_what_is_printed_as_it_is(tmp_path: Path, drain: Drain) -> None:
    written(drain, b"one\n\x00\xff\nno end")
    assert log(tmp_path) == b"one\n\x00\xff\nno end"
    assert drain.rest_seconds() == 0


def test_drain__of_a_lot_keeps_beginning_and_end_and_says_how_much_is_missing(tmp_path: Path, drain: Drain) -> None:
    lines = b"".join(b"line %07d\n" % number for number in range(1_000_000))
    written(drain, lines)
    assert drain.rest_seconds() > 0  # type: ignore[operator]
    drain.flush()
    found = log(tmp_path)
    assert len(found) < BURST + READ_BYTES + 2 * TAIL_BYTES
    head, _, rest = found.partition(b"(")
    missing, _, tail = rest.partition(b")\n")
    assert lines.startswith(head) and head.endswith(b"\n")
    assert lines.endswith(tail) and tail.startswith(b"line ")
    assert int(missing.split()[0]) == len(lines) - len(head) - len(tail)


def test_drain__writes_again_when_the_rate_allows_it(tmp_path: Path, drain: Drain, now: list[float]) -> None:
    written(drain, b"early\n" * BURST)
    size = len(log(tmp_path))
    now[0] += 5
    written(drain, b"late\n")
    assert log(tmp_path).endswith(b"early\nlate\n")
    assert len(log(tmp_path)) < size + 2 * TAIL_BYTES


def test_drain__keeps_the_end_of_a_line_without_end_but_no_part_of_a_secret(tmp_path: Path, drain: Drain) -> None:
    written(drain, b"x" * (8 * BURST) + b"the end")
    drain.flush()
    assert log(tmp_path).endswith(b"xthe end")
    assert b"bytes not kept" in log(tmp_path)
    assert len(log(tmp_path)) < BURST + READ_BYTES + 2 * TAIL_BYTES


def test_drain__fills_no_disk_while_nobody_reads(
    tmp_path: Path, drain: Drain, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output_drain, "DISK_BYTES", 2 * BURST)
    for _ in range(20):
        now[0] += 10
        written(drain, b"a line of a chatty model\n" * (BURST // 30))
    assert len(log(tmp_path)) < 4 * BURST
    drain.flush()
    assert log(tmp_path).endswith(b"a line of a chatty model\n")


def test_drain__does_not_write_into_a_link_that_took_the_logs_place(tmp_path: Path) -> None:
    (tmp_path / "log").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="log"):
        Drain(str(tmp_path / "log"))
