"""The one way to a terminal for what a command has to say."""

from __future__ import annotations

from rich.console import Console

from tasks.domain.masking import masked
from tasks.domain.plain_text import plain_block


def error_console() -> Console:
    """A console on standard error."""
    return Console(stderr=True)


def say_on(console: Console, text: str) -> None:
    """Say something on a console: no escape, no markup of rich and no line of its own in it, and no known secret."""
    console.print(plain_block(masked(text)), highlight=False, soft_wrap=True, markup=False, emoji=False)
