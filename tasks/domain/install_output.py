"""What uv and pip say when a package cannot be installed, in one line."""

from __future__ import annotations

import re

_REASON_CHARS = 400
_FRAME = re.compile(r"^[\s│├╰─▶×╭╮╯]+")
_NOISE = re.compile(r"^(warning|note|hint|info|WARNING|Traceback)\b|^\s*$")
_RAISED = re.compile(r"\s+\w*(Error|Exception)\b: ")
"""The last line of a traceback."""
_OLD_METADATA = re.compile(
    r"invalid metadata|Failed to parse|Couldn't parse metadata|no attribute|Unable to extract", re.I
)
_NETWORK = re.compile(r"error sending request|Network|offline|Connection|timed out|dns error|Temporary failure", re.I)


def reason_of(output: str) -> str:
    """The reason in the output of uv or pip; empty if there is none."""
    lines = output.splitlines()
    errors = [line.partition("ERROR:")[2].strip() for line in lines if line.lstrip().startswith("ERROR:")]
    if errors:  # pip: the first says what, those after it only that it did not work
        return _one_line([errors[0]])
    causes = [line.partition("cause:")[2] for line in lines if line.startswith("  cause:")]
    if causes:  # uv: an error, what caused it, and perhaps what a build printed
        raised = [line for line in lines if _RAISED.match(line)]
        what = lines[0].removeprefix("error:") if lines[0].startswith("error: Failed to build") else ""
        return _one_line([f"{what}:" if what else "", raised[-1] if raised else causes[-1]])
    marked = [number for number, line in enumerate(lines) if "▶" in line]
    if marked:  # uv on a terminal: an arrow leads to the reason, which goes on in the lines below it
        after = lines[marked[-1] :]
        end = next((number for number, line in enumerate(after) if number and not line.strip()), len(after))
        return _one_line(after[:end])
    said = [line for line in lines if not _NOISE.match(_FRAME.sub("", line))][-3:]
    return _one_line(said).removeprefix("error: ")


def is_of_old_metadata(output: str) -> bool:
    """Whether uv refuses what an older installer takes: names and versions as they were once written."""
    return _OLD_METADATA.search(output) is not None


def is_of_network(output: str) -> bool:
    """Whether the index was not reached."""
    return _NETWORK.search(output) is not None


def _one_line(lines: list[str]) -> str:
    text = " ".join(_FRAME.sub("", line).strip() for line in lines).strip()
    return text if len(text) <= _REASON_CHARS else f"{text[:_REASON_CHARS]}..."
