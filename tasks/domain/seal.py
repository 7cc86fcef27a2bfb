"""A checksum at the end of every file that a run itself relies on: plan, reports and partial reports.

Power loss leaves files empty or truncated, disks flip bits, and people copy files to the wrong place. The checksum
covers the bytes and the file's owner (:func:`seal`), so that an intact report of another run or shard is also detected.
It is no protection against users who may write into the output folder: they can compute it. Forbidden changes are
detected by comparing the plan with the service, and reports with the plan (:mod:`tasks.engine.stored_plan`,
``reports``); within one try, digests of both are passed along with the references to them.
"""

from __future__ import annotations

import hashlib

from tasks.domain.errors import DamagedFile

_MARK = b"\nTHRESHER-1 "
_SIZE = 16
_TRAILER = len(_MARK) + 2 * _SIZE


def digest(data: bytes, owner: str = "") -> str:
    """The checksum of bytes that belong to ``owner``, as 32 hexadecimal digits."""
    keyed = hashlib.blake2b(digest_size=_SIZE, person=b"thresher")
    keyed.update(f"{owner}\0".encode())
    keyed.update(data)
    return keyed.hexdigest()


def seal(data: bytes, owner: str) -> bytes:
    """The bytes with their checksum appended. ``owner`` is a run's id and a shard's folder."""
    return b"".join((data, _MARK, digest(data, owner).encode()))


def unseal(data: bytes, owner: str) -> bytes:
    """The bytes without their checksum. Raises DamagedFile if it does not match them and their owner."""
    if not data:
        raise DamagedFile("is empty")
    payload, mark, found = data[:-_TRAILER], data[-_TRAILER : -2 * _SIZE], data[-2 * _SIZE :]
    if mark != _MARK:
        raise DamagedFile("is cut, or was not written by this version of Thresher")
    if found != digest(payload, owner).encode():
        raise DamagedFile("is damaged, or belongs to another run or shard")
    return payload
