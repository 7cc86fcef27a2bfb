"""Which libraries, and which versions of them, a model file names. The file is searched, and nothing in it is run."""

from __future__ import annotations

import bz2
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, Protocol

MAX_BYTES = 64 << 20
"""Of a file, and of what it is unpacked to, so much is searched."""
_TEXT = rb"(?:\x8c(?P<short>.)|X(?P<long>....)|U(?P<old>.))"
_SKLEARN = re.compile(rb"_sklearn_version(?:\x94|q.|r....)?" + _TEXT + rb"(?P<rest>[0-9][0-9A-Za-z.+]*)", re.DOTALL)
_OF_XGBOOST = re.compile(rb"version\[(?:\$.)?#[A-Za-z]\x00*\x03(i)(.)i(.)i(.)", re.DOTALL)
_OF_XGBOOST_AS_JSON = re.compile(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]')
_MODULES = {
    rb"xgboost\.(?:sklearn|core)": "xgboost",
    rb"lightgbm\.(?:sklearn|basic)": "lightgbm",
    rb"catboost\.core": "catboost",
    rb"imblearn\.[a-z_]+": "imbalanced-learn",
    rb"category_encoders\.[a-z_]+": "category-encoders",
    rb"feature_names_in_|pandas\.core|(?:xgboost|lightgbm)\.(?:sklearn|basic|core)": "pandas",
}
"""What stands in a pickle -> the distribution that it needs."""
_RANGES = (
    ((0, 24), (3, 9), "1.23.5"),
    ((1, 0), (3, 10), "1.26.4"),
    ((1, 2), (3, 11), "1.26.4"),
    ((1, 4), (3, 12), "1.26.4"),
    ((1, 5), (3, 12), ""),
    ((1, 6), (3, 13), ""),
)
"""Of scikit-learn up to a version: the newest Python, and the newest numpy, for which it was built."""


class _Unpacks(Protocol):
    def decompress(self, data: bytes, max_length: int = ..., /) -> bytes: ...


_COMPRESSIONS: tuple[tuple[bytes, Callable[[], _Unpacks]], ...] = (
    (b"\x1f\x8b", lambda: zlib.decompressobj(wbits=31)),
    (b"\x78", zlib.decompressobj),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ", lzma.LZMADecompressor),
    (b"\x5d\x00\x00", lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE)),
)


def of_pickle(data: bytes) -> tuple[list[str], tuple[int, int] | None]:
    """The requirements that a file of pickle or joblib names, and the newest Python for them; None if any will do."""
    text = _unpacked(data)
    found = {name: name for pattern, name in _MODULES.items() if re.search(pattern, text)}
    if (xgboost := _xgboost_version(text)) and "xgboost" in found:
        found["xgboost"] = f"xgboost>={xgboost}"
    match = _SKLEARN.search(text)
    return _with_sklearn(_version_in(match) if match is not None else "", list(found.values()))


def of_skops(data: bytes) -> tuple[list[str], tuple[int, int] | None]:
    """The same of a file of skops."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            schema = json.loads(archive.read("schema.json"))
    except (zipfile.BadZipFile, KeyError, ValueError, NotImplementedError, RecursionError) as error:
        raise ValueError(f"is no file of skops: {error}") from None
    text = json.dumps(schema).encode()
    found = [name for pattern, name in _MODULES.items() if re.search(pattern, text)]
    version = re.search(r'"_sklearn_version": \{.*?"content": "\\?"?([0-9][0-9A-Za-z.]*)', text.decode(), re.DOTALL)
    return _with_sklearn(version[1] if version else "", found)


def of_xgboost(data: bytes) -> list[str]:
    """The requirement of a model of XGBoost: later versions read what earlier ones wrote."""
    version = _xgboost_version(data)
    return [f"xgboost>={version}"] if version else []


def _with_sklearn(version: str, others: Sequence[str]) -> tuple[list[str], tuple[int, int] | None]:
    if not version:
        return list(others), None
    requirements = [f"scikit-learn=={version}", *others]
    numbers = tuple(int(one) for one in re.findall(r"\d+", version)[:2])
    for upto, python, numpy in _RANGES:
        if numbers <= upto:
            return [*requirements, *([f"numpy<={numpy}"] if numpy else [])], python
    return requirements, None


def _version_in(match: re.Match[bytes]) -> str:
    size = match["short"] or match["old"]
    length = size[0] if size else int.from_bytes(match["long"], "little")
    return match["rest"][:length].decode()


def _xgboost_version(data: bytes) -> str:
    if match := _OF_XGBOOST.search(data):
        return ".".join(str(match[number][0]) for number in (2, 3, 4))
    if match := _OF_XGBOOST_AS_JSON.search(data):
        return b".".join(match.groups()).decode()
    return ""


def _unpacked(data: bytes) -> bytes:
    for magic, maker in _COMPRESSIONS:
        if data.startswith(magic):
            unpacker: Any = maker()
            try:
                return bytes(unpacker.decompress(data, MAX_BYTES))
            except (zlib.error, OSError, lzma.LZMAError, EOFError):
                return data
    return data
