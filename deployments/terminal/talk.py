"""The only way in which commands write messages to a terminal."""

from __future__ import annotations

from rich.console import Console

from tasks.domain.masking import masked
from tasks.domain.plain_text import plain_block


def error_console() -> Console:
    """A console on standard error."""
    return Console(stderr=True)


def say_on(console: Console, text: str) -> None:
    """Print a message: no escape sequences, rich markup or known secrets; its further lines are indented."""
    console.print(plain_block(masked(text)), highlight=False, soft_wrap=True, markup=False, emoji=False)
