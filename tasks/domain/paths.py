"""Addresses of files and folders, and the names of everything that a run writes.

An address is printed as it was given: ``/data/in``, ``file:///data/in``, ``s3://bucket/in`` or ``obs://bucket/in``.
Nothing in it is percent-decoded: ``%20`` in an address is three characters of the name, so that every name an object
store allows has exactly one address.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from urllib.parse import unquote, urlsplit

Scheme = Literal["local", "s3", "obs", "http"]

RESULT_SUFFIX = "_result.txt"
NAME_BYTES = 255
"""Longest file name, in bytes, that common file systems accept (NAME_MAX of Linux)."""

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
_USER = re.compile(r"(https?://)[^\s/?#]*@", re.IGNORECASE)
_WEB = re.compile(r"https?://\S*", re.IGNORECASE)
_QUERY = re.compile(r"[?#]")
_AFTER_QUERY = "'\"<>()[]{}.,:;"
"""A path or a query may hold these; at the very end of a query they belong to the message around it."""
_SPECIAL = re.compile(r"(^|/)(\.{0,2})(/|$)|[\x00-\x1f\x7f]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,254}")
_WORD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a file, an object or a folder is.

    ``scheme`` is the kind of storage; ``bucket`` is empty for local paths; ``path`` is an absolute path (local), a key
    without leading slash (s3, obs) or the whole URL (http); ``printed`` is the text before the path when shown.
    """

    scheme: Scheme
    bucket: str
    path: str
    printed: str

    def __str__(self) -> str:
        return self.printed + self.path

    def child(self, relative: str) -> Address:
        """The address of ``relative`` below this folder."""
        path = f"{self.path.rstrip('/')}/{relative}" if self.path else relative
        return Address(self.scheme, self.bucket, path, self.printed)

    @property
    def name(self) -> str:
        """The last part of the path; percent-decoded and without the query for a share link."""
        if self.scheme == "http":
            path = urlsplit(self.path).path
            return unquote(path.rpartition("/")[2]).rpartition("/")[2]
        return self.path.rstrip("/").rpartition("/")[2]

    def contains(self, other: Address) -> bool:
        """Whether ``other`` is this folder or is below it."""
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            return False
        own = self.path.rstrip("/")
        prefix = f"{own}/" if self.path or not self.bucket else ""
        return f"{other.path.rstrip('/')}/".startswith(prefix)


def parse_address(text: str, base: str | None = None) -> Address:
    """Parse an address; a relative local path is resolved against ``base`` (default: the working directory).

    Raises ValueError, with the expected form, for an unknown scheme, a missing bucket or an empty text.
    """
    if text.startswith("/") and "\0" not in text:
        return Address("local", "", _absolute(text, base), "")  # fast path: usual, and taken for local items
    if not text or not text.strip():
        raise ValueError("an address is needed: a local path, file://, s3:// or obs://")
    if "\0" in text:
        raise ValueError("an address has no NUL character")
    match = _SCHEME.match(text)
    if match is None:
        return Address("local", "", _absolute(os.path.expanduser(text), base), "")
    scheme, rest = match[1].lower(), text[match.end() :]
    if scheme == "file":
        if not rest.startswith("/"):
            raise ValueError("a file:// address has an absolute path: file:///folder/file")
        return Address("local", "", _absolute(rest, base), "file://")
    if scheme in ("s3", "obs"):
        bucket, _, key = rest.partition("/")
        if not bucket:
            raise ValueError(f"the bucket is missing: {scheme}://bucket/object")
        if _BUCKET.fullmatch(bucket) is None:
            raise ValueError(f"a bucket's name has letters, digits, '.', '-' and '_' only: {scheme}://bucket/object")
        return Address("s3" if scheme == "s3" else "obs", bucket, key, f"{scheme}://{bucket}/")
    if scheme in ("http", "https"):
        if not rest.split("/", 1)[0]:
            raise ValueError("the host is missing: https://host/object")
        return Address("http", "", text, "")
    raise ValueError(f"the scheme {scheme}:// is not known; use a local path, file://, s3://, obs:// or a share link")


def _absolute(path: str, base: str | None) -> str:
    if path.startswith("/") and "//" not in path and "/." not in path and path[-1] != "/":
        return path
    # normpath, not realpath: a link keeps the name that the user gave. A trailing slash is removed.
    return os.path.normpath(os.path.join(base or os.getcwd(), path))


def redact(text: str) -> str:
    """``text`` without the query and user part of every web address: these may hold signatures and passwords."""
    return _WEB.sub(_without_query, _USER.sub(r"\1", text))


def redact_source(source: str) -> str:
    """``source`` as :func:`redact` shows it; if it is a share link as a whole, blanks do not end the link."""
    text = _USER.sub(r"\1", source)
    if _WEB.match(text) and (begin := _QUERY.search(text)) is not None and begin.end() < len(text):
        return f"{text[: begin.end()]}..."
    return redact(text)


def _without_query(address: re.Match[str]) -> str:
    text = address[0]
    begin = _QUERY.search(text)
    if begin is None:
        return text
    end = len(text.rstrip(_AFTER_QUERY))
    return f"{text[: begin.end()]}...{text[end:]}" if end > begin.end() else text


def safe_relative(relative: str) -> str:
    """``relative``, changed so that it can only name a file below its folder, on every kind of storage.

    Empty parts, ``.``, ``..`` and control characters are percent-encoded.
    """
    if _SPECIAL.search(relative) is None:
        return relative
    special = {"": "%00", ".": "%2E", "..": "%2E%2E"}
    named = "/".join(special.get(part, part) for part in relative.split("/"))
    return _CONTROL.sub(lambda m: f"%{ord(m[0]):02X}", named)


_LIKE_A_RESULT = re.compile(rf"{re.escape(RESULT_SUFFIX)}~*(?=/)")


def result_name(relative: str, number: int | None = None) -> str:
    """Name of the result file, below the result folder, of the item ``relative`` (``1.jpg`` -> ``1.jpg_result.txt``).

    Different items of one folder always get different names. No folder gets the name of a result file: an input folder
    that has such a name (``1.jpg_result.txt``) gets an additional ``~``. ``number`` distinguishes items of different
    folders that would get the same name: ``1.jpg~17_result.txt``. A name that had to be changed, because it could lead
    outside or has a part longer than 255 bytes, gets a hash of the original before its ending.
    """
    mark = "" if number is None else f"~{number}"
    safe = safe_relative(relative)
    if safe is not relative:
        mark = f"~{_hash(relative)}{mark}"
    if RESULT_SUFFIX in safe:
        safe = _LIKE_A_RESULT.sub(r"\g<0>~", safe)
    name = safe + mark + RESULT_SUFFIX
    if len(name) <= 63:  # 4 bytes a character at most: nothing to cut
        return name
    *folders, last = safe.split("/")
    return "/".join([*(_cut(folder, "") for folder in folders), _cut(last, mark + RESULT_SUFFIX)])


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:12]


def _cut(part: str, ending: str) -> str:
    if len((part + ending).encode("utf-8", "surrogateescape")) <= NAME_BYTES:
        return part + ending
    tail = f"~{_hash(part)}{ending}"
    kept = part.encode("utf-8", "surrogateescape")[: NAME_BYTES - len(tail.encode())]
    return kept.decode("utf-8", "ignore") + tail


@dataclass(frozen=True, slots=True)
class OutputNames:
    """The names of all files and folders that one run writes below its output folder."""

    task_id: str
    result_folder_layout: str = "infer-result-{task_id}"

    @property
    def result_folder(self) -> str:
        """Folder of the result files: ``infer-result-<id>``, or ``infer-result`` in the older layout."""
        return self.result_folder_layout.replace("{task_id}", self.task_id)

    @property
    def scratch(self) -> str:
        """Folder of plan and reports during the run; hidden, removed at the end."""
        return f".infer-result-{self.task_id}"

    @property
    def summary(self) -> str:
        """Name of the summary file."""
        return f"infer-result-{self.task_id}.summary.json"

    @property
    def logs(self) -> str:
        """Folder of the model servers' output."""
        return f"infer-result-{self.task_id}.logs"

    def manifest(self, part: int) -> str:
        """Name of part 0, 1, 2 ... of the output manifest."""
        return f"infer-result-{self.task_id}{f'_{part}' if part else ''}.manifest"

    def is_of_this_run(self, name: str) -> bool:
        """Whether this run writes a file or folder of this name at the top of the output folder."""
        return name == self.result_folder or (self.task_id in name and is_earlier_run(name))


_TASK_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_SCRATCH = re.compile(rf"\.infer-result-({_TASK_ID})")
_FIRST_PART = re.compile(rf"infer-result-({_TASK_ID})\.manifest")
_EARLIER_RUN = re.compile(rf"\.?infer-result-{_TASK_ID}(|_\d+\.manifest|\.manifest|\.summary\.json|\.logs)")


def is_earlier_run(name: str) -> bool:
    """Whether a name at the top of an output folder was written by an earlier (or another) run of Thresher."""
    return _EARLIER_RUN.fullmatch(name.rstrip("/")) is not None


def scratch_of(name: str) -> str:
    """The id of the run whose scratch folder has this name at the top of an output folder; empty for other names."""
    found = _SCRATCH.fullmatch(name.rstrip("/"))
    return found[1] if found else ""


def run_of_manifest(address: str) -> str | None:
    """The run id in the name of an output manifest's first part; None for the address of another file."""
    found = _FIRST_PART.fullmatch(address.rpartition("/")[2])
    return None if found is None else found[1]


def unknown_words(template: str) -> list[str]:
    """The ``{...}`` words of an output path that would not be replaced."""
    return [word for word in _WORD.findall(template) if word not in ("task_id", "name") and not _is_time(word)]


def has_words(template: str) -> bool:
    """Whether an output path differs from run to run: it holds ``{task_id}`` or ``{scheduled_time...}``."""
    return any(word == "task_id" or _is_time(word) for word in _WORD.findall(template))


def expand_words(template: str, *, task_id: str, name: str, scheduled_time: datetime) -> str:
    """Replace ``{task_id}``, ``{name}`` and ``{scheduled_time:%Y-%m-%d}`` in an output path."""

    def replace(match: re.Match[str]) -> str:
        word = match[1]
        if word == "task_id":
            return task_id
        if word == "name":
            return name
        if _is_time(word):
            return scheduled_time.strftime(word.partition(":")[2] or "%Y-%m-%dT%H-%M-%S")
        return match[0]

    return _WORD.sub(replace, template)


def _is_time(word: str) -> bool:
    return word == "scheduled_time" or word.startswith("scheduled_time:")
