"""What a model server printed last, without the secrets that it was given."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from clients.support import run

from tasks.clients.instances.launcher import Server
from tasks.domain.instance import Launch

LINES = "\n".join(f"{number}abcdefghijklmnopqrstuvwxyz" for number in range(9))
PEM = f"-----BEGIN KEY-----\n{LINES}\n-----END-----"


def tail_of(folder: Path, printed: str, *secrets: str) -> str:
    """The tail of a server that printed this and ended."""

    async def work() -> str:
        (folder / "printed").write_text(printed)
        launch = Launch((sys.executable, "-c", "print(open('printed').read())"), folder, {}, secrets)
        server = await Server.start(launch, folder / "log")
        try:
            await server.ended()
            return server.tail()
        finally:
            await server.stop()

    return run(work())


@pytest.mark.parametrize("line_end", ["\n", "\\n", "\n   | ", "\r\n"])
def test_tail__hides_every_line_of_a_secret_of_several(tmp_path: Path, line_end: str) -> None:
    shown = PEM.replace("\n", line_end)
    said = tail_of(tmp_path, f"before\n{shown}\nafter", PEM)
    assert "before" in said and "after" in said and "***" in said
    assert "abcdefgh" not in said and "KEY" not in said


@pytest.mark.parametrize("before", range(3980, 4020, 3))
def test_tail__hides_a_secret_on_the_edge_of_what_is_shown(tmp_path: Path, before: int) -> None:
    secret = "s3cr3t-" + "x" * 40
    said = tail_of(tmp_path, "a" * 9000 + secret + "b" * before, secret)
    assert "xxxx" not in said and "s3cr" not in said
    assert "bbbb" in said


def test_tail__shows_texts_that_are_too_short_to_be_secrets(tmp_path: Path) -> None:
    assert tail_of(tmp_path, "a1b", "1") == " It printed last:\n    a1b"
