from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.clients.processes import output_follower
from tasks.clients.processes.output_follower import LINE_BYTES, OutputFollower
from tasks.domain.masking import Masker

SECRET = "hunter2-hunter2"


class Taken:
    """Lines that a follower has delivered; waits for them."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Condition()

    async def __call__(self, lines: Sequence[str]) -> None:
        async with self._changed:
            self.lines += lines
            self._changed.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: len(self.lines) >= count)


def append(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        file.write(data)


def test_follower__delivers_lines_while_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "instance-0.log"

    async def follow() -> list[str]:
        taken = Taken()
        follower = OutputFollower(path, Masker(()), taken)  # the file is not there yet
        append(path, b"first\nsec")
        await taken.until(1)
        assert taken.lines == ["first"]
        append(path, b"ond\nthird")
        await taken.until(2)
        await follower.close()
        return taken.lines

    assert asyncio.run(follow()) == ["first", "second", "third"]


def test_follower__of_a_file_that_never_comes_delivers_nothing(tmp_path: Path) -> None:
    async def follow() -> list[str]:
        taken = Taken()
        await OutputFollower(tmp_path / "none", Masker(()), taken).close()
        return taken.lines

    assert asyncio.run(follow()) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 30), max_size=8))
def test_follower__delivers_the_same_however_the_writing_is_cut(tmp_path_factory: object, cuts: list[int]) -> None:
    text = f"start\nkey {SECRET} end\n\nlast {SECRET}".encode()
    path = Path(os.path.join(str(tmp_path_factory.mktemp("cut")), "log"))  # type: ignore[attr-defined]

    async def follow() -> list[str]:
        taken = Taken()
        follower = OutputFollower(path, Masker([SECRET]), taken)
        place = 0
        for cut in cuts:
            append(path, text[place : place + cut])
            place += cut
            await follower._read_to_end()
        append(path, text[place:])
        await follower.close()
        return taken.lines

    assert asyncio.run(follow()) == ["start", "key *** end", "", "last ***"]


def test_follower__shows_what_a_terminal_would_show(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"\x1b[31mred\x1b[0m\tx\r\n 10%\r 50%\r100%\nbad \xff byte\x00\x07\n")

    async def follow() -> list[str]:
        taken = Taken()
        await OutputFollower(path, Masker(()), taken).close()
        return taken.lines

    assert asyncio.run(follow()) == ["red\tx", "100%", "bad \ufffd byte"]


def test_follower__cuts_a_line_without_end_but_never_in_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "log"
    before = b"x" * (LINE_BYTES - 3)
    append(path, before + SECRET[:8].encode())

    async def follow() -> list[str]:
        taken = Taken()
        follower = OutputFollower(path, Masker([SECRET]), taken)
        await taken.until(1)
        append(path, SECRET[8:].encode() + b" and on\n")
        await follower.close()
        return taken.lines

    lines = asyncio.run(follow())
    assert len(lines) == 2
    assert "".join(lines) == before.decode() + "*** and on"


def test_follower__gives_back_the_room_of_what_it_has_read_but_for_the_last_part(tmp_path: Path) -> None:
    path = tmp_path / "log"
    line = b"a" * 1023 + b"\n"

    async def follow() -> list[str]:
        taken = Taken()
        follower = OutputFollower(path, Masker(()), taken, kept_bytes=1 << 20)
        append(path, line * 2048)
        async with asyncio.timeout(60):
            while path.stat().st_blocks * 512 > 2 * output_follower.TAIL_BYTES:
                await asyncio.sleep(output_follower.POLL_SECONDS)
        append(path, b"after\n")
        await follower.close()
        return taken.lines

    lines = asyncio.run(follow())
    assert (len(lines), lines[-1]) == (2049, "after")
    assert path.read_bytes().endswith(line * 60 + b"after\n")


def test_follower__does_not_follow_a_link_that_took_the_files_place(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.write_text("a key of the flow\n")
    (tmp_path / "log").symlink_to(private)

    async def follow() -> list[str]:
        taken = Taken()
        await OutputFollower(tmp_path / "log", Masker(()), taken).close()
        return taken.lines

    assert asyncio.run(follow()) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 200))
def test_follower__cuts_no_sign_and_no_escape_of_a_long_line(tmp_path_factory: object, shift: int) -> None:
    path = Path(os.path.join(str(tmp_path_factory.mktemp("long")), "log"))  # type: ignore[attr-defined]
    before = "x" * (LINE_BYTES - 160 + shift)
    append(path, f"{before}\x1b[31mrød €{'y' * 300}".encode())

    async def follow() -> list[str]:
        taken = Taken()
        follower = OutputFollower(path, Masker([SECRET]), taken)
        await follower._read_to_end()
        append(path, b" end\n")
        await follower.close()
        return taken.lines

    assert "".join(asyncio.run(follow())) == f"{before}rød €{'y' * 300} end"


def test_follower__lets_others_have_their_turn_while_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append(path, b"line\n" * 200_000)
    slices = path.stat().st_size // output_follower.READ_BYTES

    async def follow() -> tuple[int, int]:
        taken = Taken()
        turns = 0
        follower = OutputFollower(path, Masker(()), taken)

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(others())
        await follower.close()
        task.cancel()
        return turns, len(taken.lines)

    turns, lines = asyncio.run(follow())
    assert lines == 200_000
    assert turns >= slices
