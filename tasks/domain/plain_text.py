"""Texts from outside made plain: nothing in them acts on a terminal, a log, a page or the reading order."""

from __future__ import annotations

import json
import re
from typing import Any

_ESCAPES = re.compile(
    # A control sequence; a string for the terminal (title, link, picture) with its end; any other escape. Lengths are
    # bounded, so that a text of unfinished sequences takes no time.
    r"(?:\x1b\[|\x9b)[0-?]{0,256}[ -/]{0,16}[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x80-\x9f\n\r]{0,4096}(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]{0,16}[0-~]"
)
_LINE_ENDS = re.compile("\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Other control characters, changes of the writing direction, characters without width, tags, and halves of surrogate
# pairs. Joiners and variation selectors belong to words and emoji of other scripts, not to ASCII texts.
_INVISIBLE = (
    "\x00-\x08\x0e-\x1b\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b\u200e\u200f"
    "\u202a-\u202e\u2060-\u206f\u3164\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e007f"
)
_UNSEEN = re.compile(
    f"[{_INVISIBLE}]|(?<![^\x00-\x7f])[\u200c\u200d\ufe00-\ufe0f\U000e0100-\U000e01ef]|[\u200c\u200d](?![^\x00-\x7f])"
)
_HALF = re.compile("[\ud800-\udfff]")
_SUSPICIOUS = re.compile("[^\t\n -~\u00a0-\u00ac\u00ae-\u024f\u0370-\u05ff\u3041-\u30ff\u4e00-\u9fff\uac00-\ud7a3]")
"""A quick test: a text without any of these is plain."""
_NOT_IN_JSON = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")


def plain_lines(text: str) -> list[str]:
    """The lines of a text as a terminal would show them: no escapes, no controls except tabs, no invisible characters.

    A line that overwrites itself (a progress bar) is in its last state; backspaces are applied.
    """
    if _SUSPICIOUS.search(text) is None:
        return text.split("\n")
    # A lone carriage return goes back to the start of the line: see _last_state.
    lines = re.split("[\n\x0b\x0c\x1c-\x1e\x85\u2028\u2029]", _without_escapes(text))
    return [_plain(_last_state(line)) for line in lines]


def plain_line(text: str) -> str:
    """A text as one line: as :func:`plain_lines`, with a blank for each line end and without overwriting."""
    if _SUSPICIOUS.search(text) is None and "\n" not in text:
        return text
    return _plain(_LINE_ENDS.sub(" ", _without_escapes(text)))


def plain_block(text: str) -> str:
    """A message of several plain lines, all except the first indented, so that no line looks like another message."""
    first, *others = plain_lines(text)
    return "\n".join([first, *(line if line[:1] in ("", " ", "\t") else f"  {line}" for line in others)])


def plain_json(value: Any, *, indent: int | None = None) -> str:
    """JSON in which characters that act on a terminal, or are not UTF-8, are ``\\u`` escapes."""
    return _NOT_IN_JSON.sub(lambda sign: f"\\u{ord(sign[0]):04x}", json.dumps(value, ensure_ascii=False, indent=indent))


def has_halves(text: str) -> bool:
    """Whether a text holds half a surrogate pair, which UTF-8 cannot encode."""
    return not text.isascii() and _HALF.search(text) is not None


def without_halves(text: str) -> str:
    """A text that can be encoded: half a surrogate pair becomes U+FFFD."""
    return _HALF.sub("\ufffd", text)


def markdown(text: str) -> str:
    """A text as one line of Markdown without markup: no link, picture, tag, table cell or list."""
    return _AT_START.sub(r"\1\\\2", _MEANT.sub(r"\\\g<0>", plain_line(text)))


def code_span(text: str) -> str:
    """A text as code in a line of Markdown."""
    text = plain_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    space = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{space}{text}{space}{fence}"


_MEANT = re.compile(r"[\\`*_\[\]<>|~#&$!{}@^=]|:(?=//)|(?<=[wW])\.")
"""Markdown characters, and characters that turn a web or mail address into a link."""
_AT_START = re.compile(r"^(\s{0,9}\d{0,9})([-+.)])")


def _without_escapes(text: str) -> str:
    return _ESCAPES.sub("", text) if "\x1b" in text or _C1.search(text) else text


_C1 = re.compile("[\x80-\x9f]")


def _last_state(line: str) -> str:
    line = line.rstrip("\r").rpartition("\r")[2]
    if "\b" not in line:
        return line
    kept: list[str] = []
    for sign in line:
        if sign != "\b":
            kept.append(sign)
        elif kept:
            kept.pop()
    return "".join(kept)


def _plain(line: str) -> str:
    return without_halves(_UNSEEN.sub("", line))
