"""Input manifests (the items to read) and output manifests (their outcomes), line by line."""

from __future__ import annotations

import json
import re
from json.encoder import encode_basestring as _text  # what json.dumps(ensure_ascii=False) does with a text
from typing import Any, NamedTuple

from tasks.domain.cells import unseen
from tasks.domain.file_kinds import LOOKED_AT, encoding_of, is_utf8, other_kind
from tasks.domain.plain_text import has_halves

MANIFEST_SUFFIX = ".manifest"
LONGEST_LINE = 8 << 20
"""Bytes of one line of an input manifest: room for thousands of items, but not for a file without line ends."""
LONGEST_OUTPUT_LINE = 32 << 20
"""The same for an output manifest, whose lines hold complete sources and messages."""
SHOWN = 2000
"""Characters of an unreadable line that its FAILED line keeps as its source."""

NAME_NOT_UTF8 = "The file's name is not UTF-8."
_NO_SOURCE = re.compile(rf"Line \d+ of the input manifest cannot be read: |Download file failed\. {NAME_NOT_UTF8}")

# int() refuses thousands of digits: such a number in an ignored field must not make the line unreadable.
_decoder = json.JSONDecoder(parse_int=float)
# JSON's blanks, invisible characters, and byte order marks, which remain where files were concatenated.
_BLANKS = " \t\r\n\u00a0\u2000\u2001\u2002\u2003\u2009\u200b\u2028\u2029\u202f\u2060\u3000\ufeff"
_BEHIND = f"{_BLANKS},"
_BRACKETS = ("", "[", "]")
"""Lines without an item in a manifest that was written as, or cut out of, one JSON array."""
_OPENS = re.compile(r"\[[ \t\r\n]*\{")


def foreign(head: bytes) -> str:
    """Why a file that begins with ``head`` cannot be an input manifest; empty if it may be one.

    So a file of another kind or encoding is reported once, not line by line.
    """
    kind = other_kind(head)
    if not kind and not is_utf8(head, cut=True) and (encoding := encoding_of(head)):
        lines = head[:LOOKED_AT].split(b"\n")[:-1]
        if sum(not is_utf8(line) for line in lines) > 1:  # a single one is reported as an error of its line
            kind = f"text in {encoding}"
    if not kind and _goes_over_lines(head[:LOOKED_AT].decode("utf-8", "ignore")):
        kind = "JSON of which one object, or one array of texts, goes over several lines"
    return f"the input manifest is {kind}; it should be text in UTF-8, one JSON object a line" if kind else ""


def _goes_over_lines(text: str) -> bool:
    """Whether a JSON text is pretty-printed: one object goes over several lines, so no line can be read alone."""
    text = text.lstrip(f"{_BLANKS}[")
    try:
        value, end = _decoder.raw_decode(text)
    except (ValueError, RecursionError):
        return False
    after = text[end : end + SHOWN].lstrip(_BEHIND)
    of_a_prefix = isinstance(value, dict) and "prefix" in value and "source" not in value and after.startswith('"')
    return isinstance(value, dict) and "\n" in text[: text.find(after, end) if of_a_prefix else end]


class Entry(NamedTuple):
    """One item of an input manifest: its ``source``, or the reason why the line could not be read."""

    source: str
    error: str


def read_line(raw: bytes, number: int) -> list[Entry]:
    """The items of line ``number`` (from 1) of an input manifest.

    A line usually holds one JSON object with a ``source``. Also accepted: several objects on one line and blanks around
    keys (real files have both), commas after objects, brackets around all of them, and an array of texts after an
    object whose ``prefix`` is put before each (SageMaker's form). An empty line has no item. Unreadable text becomes an
    entry with an error that names the line, so that it is not lost. Other fields are ignored.
    """
    if len(raw) > LONGEST_LINE:
        shown = raw[: SHOWN + 1].decode("utf-8", "backslashreplace")
        return [_unreadable(shown, number, f"it has more than {LONGEST_LINE} bytes")]
    try:
        text = raw.decode("utf-8").strip(_BLANKS)
    except UnicodeDecodeError as error:
        shown = raw.strip().decode("utf-8", "backslashreplace")
        likely = f", it looks like text in {encoding}" if (encoding := encoding_of(raw)) else ""
        return [_unreadable(shown, number, f"byte {error.start + 1} is not UTF-8{likely}")]
    entries: list[Entry] = []
    position = 0
    if text.strip(_BEHIND) in _BRACKETS:
        return []
    if text.startswith("["):
        if (values := _array(text)) is not None:
            return [_entry(value, json.dumps(value, ensure_ascii=False), number) for value in values]
        position = len(text) - len(text[1:].lstrip(_BLANKS)) if _OPENS.match(text) else 0
    while position < len(text):
        try:
            value, end = _decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            name = unseen(text[error.pos : error.pos + 1] or " ")
            found = f"a {name} stands there, which does not show" if name else error.msg
            reason = f"not JSON at character {error.pos + 1}: {found}"
            return [*entries, _unreadable(text[position:], number, reason)]
        except RecursionError:
            return [*entries, _unreadable(text[position:], number, "nested too deeply")]
        entries.append(_entry(value, text[position:end], number))
        position = end
        while position < len(text) and text[position] in _BEHIND:
            position += 1
        if position == len(text) - 1 and text[position] == "]":  # (a slice would copy the text for every object)
            break
    return entries


def _array(text: str) -> list[Any] | None:
    """The objects of a line that is one JSON array of objects, or of texts after an object with their ``prefix``."""
    try:
        values = json.loads(text.rstrip(_BEHIND), parse_int=float)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, list) or not values or not isinstance(values[0], dict):
        return None
    prefix = values[0].get("prefix")
    if isinstance(prefix, str) and "source" not in values[0]:
        values = [{"source": prefix + one} if isinstance(one, str) and one else one for one in values[1:]]
    return values if values and all(isinstance(one, dict) for one in values) else None


def _entry(value: Any, text: str, number: int) -> Entry:
    if not isinstance(value, dict):
        return _unreadable(text, number, 'not a JSON object such as {"source": "s3://bucket/object"}')
    source = value.get("source")
    if source is None:
        source = next((held for key, held in value.items() if key.strip() == "source"), None)
    if not isinstance(source, str) or not source.strip():
        return _unreadable(text, number, "it has no source that is a text")
    if has_halves(source):
        return _unreadable(text, number, "its source has half a surrogate pair")
    return Entry(source, "")


def _unreadable(shown: str, number: int, reason: str) -> Entry:
    shown = shown.encode("utf-8", "backslashreplace").decode()
    kept = shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
    return Entry(kept, f"Line {number} of the input manifest cannot be read: {reason}.")


def successful_line(source: str, location: str) -> str:
    """The output manifest line of a successful item, with its line end; spaces as in the format."""
    return f'{{"source": {_text(source)},"result":"SUCCESSFUL","inference-loc": {_text(location)}}}\n'


def failed_line(source: str, message: str, location: str = "") -> str:
    """The output manifest line of a failed item, with its line end.

    ``location`` is the address of the responses for rows that did not fail; empty if all failed.
    """
    answers = f',"inference-loc": {_text(location)}' if location else ""
    return f'{{"source": {_text(source)},"result":"FAILED","error_message": {_text(message)}{answers}}}\n'


class OutputLine(NamedTuple):
    """One line of an output manifest. ``message`` is empty if its item was SUCCESSFUL, ``location`` if it has no result
    file."""

    source: str
    message: str
    location: str = ""

    @property
    def has_source(self) -> bool:
        """Whether ``source`` leads to the item again; if not, it only shows the unreadable line or file name."""
        return _NO_SOURCE.match(self.message) is None


def read_output_line(raw: bytes) -> OutputLine:
    """A line of an output manifest. Raises ValueError with the reason if it is not one."""
    if len(raw) > LONGEST_OUTPUT_LINE:
        raise ValueError(f"it has more than {LONGEST_OUTPUT_LINE} bytes")
    try:
        value = json.loads(raw.decode())
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON in UTF-8") from None
    if not isinstance(value, dict) or not isinstance(source := value.get("source"), str):
        raise ValueError("it has no source that is a text")
    if has_halves(source):
        raise ValueError("its source has half a surrogate pair")
    result, message, location = value.get("result"), value.get("error_message"), value.get("inference-loc")
    if result == "SUCCESSFUL" and isinstance(location, str):
        return OutputLine(source, "", location)
    if result == "FAILED" and isinstance(message, str) and message:
        return OutputLine(source, message, location if isinstance(location, str) else "")
    raise ValueError("it is neither SUCCESSFUL with an inference-loc nor FAILED with an error_message")
