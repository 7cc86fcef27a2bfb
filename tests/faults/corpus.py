"""The items of the fault tests, more than 500, some of them bad, and the expected outcome of each."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

COUNT = 520
MAX_ITEM_BYTES = 20_000
"""The value of THRESHER_MAX_ITEM_BYTES."""
FOLDERS = 4
REFUSED = r"The model answered HTTP 404.*as asked.*"
TOO_LARGE = rf"The file has {MAX_ITEM_BYTES + 1} bytes; it should be not larger than {MAX_ITEM_BYTES} bytes .*"
UNREADABLE = r"Download file failed\. There is no such file\."


@dataclass(frozen=True)
class Entry:
    """One item; `message` is a pattern for its error message, empty if it must be SUCCESSFUL."""

    name: str
    content: bytes | None
    """None: a broken link."""
    message: str = ""

    @property
    def result(self) -> bytes:
        """The fake model server's response at /key: the first 16 digits of its MD5 distinguish it from all others."""
        return b'{"key": "%s"}' % hashlib.md5(self.content or b"", usedforsecurity=False).hexdigest()[:16].encode()


class Corpus:
    """Items in input order. Each good one has unique bytes.

    `special` puts markers into items that must still be SUCCESSFUL, `failing` into items that must fail with a message
    that matches.
    """

    def __init__(
        self,
        special: Mapping[int, str] | None = None,
        failing: Mapping[int, tuple[str, str]] | None = None,
        links: bool = True,
    ) -> None:
        marked = {number: (marker, "") for number, marker in (special or {}).items()} | dict(failing or {})
        self.entries = tuple(_entry(number, marked.get(number), links) for number in range(COUNT))

    def write(self, folder: Path) -> Path:
        """Write the items below a folder; returns the folder."""
        for entry in self.entries:
            path = folder / entry.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if entry.content is None:
                path.symlink_to(folder / "nowhere")
            else:
                path.write_bytes(entry.content)
        return folder

    def manifest_lines(self, text: str) -> dict[str, dict[str, str]]:
        """The lines of an output manifest, by item; checks that each item has exactly one, in order and well formed."""
        assert text.endswith("\n")
        found: dict[str, dict[str, str]] = {}
        names = []
        for line in text[:-1].split("\n"):
            item = json.loads(line)
            result, last = (
                ("SUCCESSFUL", "inference-loc") if item["result"] == "SUCCESSFUL" else ("FAILED", "error_message")
            )
            source, told = (json.dumps(item[key], ensure_ascii=False) for key in ("source", last))
            assert line == f'{{"source": {source},"result":"{result}","{last}": {told}}}'
            name = "/".join(item["source"].rsplit("/", 2)[1:])
            names.append(name)
            found[name] = item
        assert names == [entry.name for entry in self.entries]
        return found

    def check(self, text: str, files: Mapping[str, bytes], results: str, may_fail: str = "") -> tuple[int, int]:
        """Check an output manifest and the result files (by path below the result folder, whose address is `results`).

        `may_fail` is a pattern of the error messages allowed for items that would otherwise be SUCCESSFUL. Returns the
        numbers of successful and failed items.
        """
        lines = self.manifest_lines(text)
        expected: dict[str, bytes] = {}
        for entry in self.entries:
            line = lines[entry.name]
            if line["result"] == "SUCCESSFUL":
                assert not entry.message, f"{entry.name} has to fail: {entry.message}"
                expected[f"{entry.name}_result.txt"] = entry.result
                assert line["inference-loc"] == f"{results}/{entry.name}_result.txt"
            else:
                allowed = [one for one in (entry.message, may_fail) if one]
                assert any(re.fullmatch(one, line["error_message"]) for one in allowed), (allowed, line)
        assert files.keys() == expected.keys()
        assert [name for name, content in files.items() if content != expected[name]] == []
        return len(expected), len(lines) - len(expected)


def _entry(number: int, marked: tuple[str, str] | None, links: bool) -> Entry:
    name = f"{number * FOLDERS // COUNT:02d}/item-{number:04d}.bin"
    text = f"item {number} "
    if marked is not None:
        return Entry(name, f"{text}{marked[0]} ".encode(), marked[1])
    if number % 52 == 7:
        return Entry(name, f"{text}FAIL:404".encode(), REFUSED)
    if number % 104 == 17:
        return Entry(name, text.ljust(MAX_ITEM_BYTES + 1, ".").encode(), TOO_LARGE)
    if links and number % 104 == 27:
        return Entry(name, None, UNREADABLE)
    return Entry(name, text.encode())
