from __future__ import annotations

import json
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.domain.masking import Masker
from tasks.domain.paths import redact
from tasks.domain.plain_text import code_span, markdown, plain_block, plain_json, plain_line, plain_lines
from tasks.domain.result import cause_of

ANY = st.text(st.characters(codec=None))
ACTING = [
    "\x1b",
    "\x07",
    "\x08",
    "\x7f",
    "\x9b",
    "\x9d",
    "\x85",
    "\r",
    "\u2028",
    "\u202e",
    "\u2066",
    "\u200b",
    "\ufeff",
]


@given(text=ANY)
def test_plain_line__has_nothing_that_acts(text: str) -> None:
    shown = plain_line(text)
    assert not any(unicodedata.category(sign) in ("Cc", "Zl", "Zp", "Cs") for sign in shown if sign != "\t")
    assert not any(sign in shown for sign in ACTING)
    assert plain_line(shown) == shown


@given(text=ANY)
def test_plain_lines__have_nothing_that_acts(text: str) -> None:
    assert all(sign not in line for line in plain_lines(text) for sign in [*ACTING, "\n"])


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("\x1b[31mred\x1b[0m\tx\r\n 10%\r 50%\r100%", ["red\tx", "100%"]),
        ("\x1b]0;PWNED\x07\x1b[2Jred \x9b31m", ["red "]),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", ["link"]),
        ("\x1bPq#0\x1b\\\x9dtitle\x9cx\x1b(B\x1bc", ["x"]),
        ("\x1b]never ended", ["never ended"]),
        ("a\x0bb\x0cc\x85d\u2028e\u2029f", ["a", "b", "c", "d", "e", "f"]),
        ("gpj\u202eexe.\u2066a\u200bb\ufeff", ["gpjexe.ab"]),
        ("overX\bwritten", ["overwritten"]),
        ("👨‍👩‍👧 и́ می‌خواهم", ["👨‍👩‍👧 и́ می‌خواهم"]),
        ("half \ud800", ["half \ufffd"]),
    ],
)
def test_plain_lines__are_what_a_terminal_would_show(text: str, lines: list[str]) -> None:
    assert plain_lines(text) == lines


def test_plain_block__sets_in_what_would_look_like_another_message() -> None:
    assert plain_block("one\n    two\nERROR three\u2028four") == "one\n    two\n  ERROR three\n  four"


@given(value=st.recursive(ANY, lambda inner: st.lists(inner) | st.dictionaries(ANY, inner), max_leaves=5))
def test_plain_json__is_the_same_value_and_acts_on_no_terminal(value: object) -> None:
    text = plain_json(value)
    assert json.loads(text) == json.loads(json.dumps(value))
    assert not any(sign in text for sign in ACTING)
    text.encode()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b_c <b>\n*no*", r"a \| b\_c \<b\> \*no\*"),
        ("[x](y) ![p](q) `c` ~~s~~ # h", r"\[x\](y) \!\[p\](q) \`c\` \~\~s\~\~ \# h"),
        ("http://evil www.evil.org me@evil.org", r"http\://evil www\.evil.org me\@evil.org"),
        ("&lt;script&gt; $x$", r"\&lt;script\&gt; \$x\$"),
        ("- a", r"\- a"),
        ("12. a", r"12\. a"),
        ("a\x85# b\u2028- c", r"a \# b - c"),
    ],
)
def test_markdown__means_nothing(text: str, shown: str) -> None:
    assert markdown(text) == shown


def test_code_span__holds_any_text() -> None:
    assert code_span("a``b\n\n`") == "``` a``b  ` ```"


HOSTILE = [
    "\x1b]", "\x1b[", "\x1b[0", "\x9d", "\x1bP" + "a" * 4000, "://", "://a:", "?sig=", "Basic ", "a", "%41", "\r",
    "\b", "`", " \n", "\u200d", '"\\"', "9 ", "www.", "HTTP ", "opensesame", "o p e n s e s a m e ", "http://a?", "https://",
]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_texts__of_any_kind_take_time_in_proportion_to_their_length(piece: str) -> None:
    """A generous bound: what grows with the square of the length would take minutes."""
    text = piece * (1_000_000 // len(piece))
    masker = Masker(["opensesame", 'an "other"'])
    started = time.process_time()
    masker.block(text)
    masker.line(text)
    markdown(text)
    code_span(text)
    cause_of(text)
    redact(text)
    assert time.process_time() - started < 30
