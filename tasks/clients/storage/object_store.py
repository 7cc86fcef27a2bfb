"""Buckets of s3:// and obs://: obstore on the hot path, s3fs for keys that obstore cannot express.

obstore (the Rust crate ``object_store``) refuses keys with an empty part (``a//b``), ``.`` or ``..`` parts or control
characters, and drops a leading or trailing slash. Such keys go through s3fs.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, MutableSequence, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Any, BinaryIO

import obstore
from obstore.exceptions import BaseError, InvalidPathError

from tasks.clients.storage.failures import (
    Missing,
    ObjectError,
    RequestRefused,
    TooLarge,
    is_error,
    is_page,
    unlike,
    version_of,
)
from tasks.clients.storage.object_errors import explain, no_s3
from tasks.clients.storage.odd_keys import OddKeys
from tasks.clients.storage.s3_client import made_store
from tasks.domain.credentials import Credentials
from tasks.domain.paths import redact
from tasks.domain.unexpected import PANICS

_ODD = re.compile(r"(^|/)(\.{0,2})(/|$)|[\x00-\x1f\x7f]")
_PUT_AT_ONCE = 32 << 20
_RANGE_BYTES = 64 << 20
"""Larger files of packages are requested in ranges of this size."""
_PART_BYTES = 64 << 20
"""An object has at most 10,000 parts."""
_PAGE_KEYS = 1000
"""Keys per page of a listing: the maximum of every S3 server."""
READ_PAUSES_SECONDS = (0.1, 0.3, 1.0)
"""Pauses before an object that does not match its listing is read again."""
OTHER_VERSIONS = 8
"""After this many objects whose listed ETag differs from their own, and no match, the storage's ETags are no longer
compared.
"""
_DIRECTORY_BUCKET = "--x-s3"
"""Suffix of directory buckets, the only ones that S3 does not list in name order."""


def is_odd(key: str) -> bool:
    """Whether obstore cannot express this key."""
    return _ODD.search(key) is not None


class Bucket:
    """One bucket. All keys are relative to it, without a leading slash. Raises ObjectError.

    Transient failures are retried for ``retry_seconds``, from the first attempt on.
    """

    def __init__(self, name: str, credentials: Credentials, timeout_seconds: float, retry_seconds: float = 60) -> None:
        self.name = name
        self._credentials = credentials
        self._odd_keys = OddKeys(name, credentials)
        self._same_versions = False
        self._other_versions = 0
        self._store = made_store(name, credentials, timeout_seconds, retry_seconds)
        self._where = redact(credentials.endpoint_url or f"of AWS in {credentials.region or 'us-east-1'}")
        self._refusal_known = False

    async def read(self, key: str, max_bytes: int | None = None, size: int = -1, version: int = 0) -> bytes:
        """A whole object. Raises TooLarge, before its body is downloaded, if it has more than ``max_bytes``.

        ``size`` and ``version`` are those of the listing (-1 and 0: unknown). A response of another size or version, or
        with an error document instead of the object, is requested again; if it still differs, ObjectError is raised.
        """
        found = []
        data = b""
        for pause in (*READ_PAUSES_SECONDS, None):
            try:
                data, e_tag = await (self._odd_keys.get if is_odd(key) else self._get)(key, max_bytes)
            except Missing:
                if size > 0 and not is_odd(key) and await self.size(f"{key}/") == size:
                    raise ObjectError(f"It is the placeholder of a folder: its key is {key}/.") from None
                raise
            if e_tag is None and is_page(data, key):
                raise ObjectError(no_s3(self._where))
            is_object = e_tag is not None or not is_error(data)
            if is_object and size in (-1, len(data)) and self._is_as_listed(version, e_tag):
                return data
            found.append(len(data) if is_object else -1)
            if pause is not None:
                await asyncio.sleep(pause)
        if {*found} == {size} and not self._same_versions and await self._has_other_versions(key, size, version):
            return data
        raise ObjectError(unlike(size, found))

    def _is_as_listed(self, version: int, e_tag: str | None) -> bool:
        """Whether an object's version matches its listing; also True if this storage's versions cannot be compared."""
        if not version or not e_tag or self._other_versions >= OTHER_VERSIONS:
            return True
        same = version == version_of(e_tag)
        self._same_versions = self._same_versions or same
        return same

    async def _has_other_versions(self, key: str, size: int, version: int) -> bool:
        """Whether the listing still shows this version of an object that was downloaded with another one.

        Some servers report different versions in the two places. After several such objects, and no match, the storage
        is known to be of this kind, and only sizes are compared.
        """
        try:
            listed = await self._odd_keys.is_listed(key, size, version)
        except ObjectError as error:
            raise ObjectError(f"{unlike(size, [size])} (The listing cannot be asked again: {error.cause})") from None
        self._other_versions += listed
        return listed

    async def _get(self, key: str, max_bytes: int | None) -> tuple[bytes, str | None]:
        """An object and its ETag; None if the response has no ETag."""
        with self._explained():
            got = await obstore.get_async(self._store, key)
            if max_bytes is not None and got.meta["size"] > max_bytes:
                raise TooLarge(got.meta["size"])
            data = (await got.bytes_async()).to_bytes()
        return data, got.meta.get("e_tag")

    async def stream(self, key: str) -> AsyncGenerator[bytes]:
        """An object in chunks of a few MiB; its size must match that of a preceding HEAD request."""
        size = await self.size(key)
        if size is None:
            raise Missing("There is no such object.")
        if is_odd(key):
            async for chunk in self._odd_keys.stream(key, size):
                yield chunk
            return
        with self._explained():
            for pause in (*READ_PAUSES_SECONDS, None):
                got = await obstore.get_async(self._store, key)
                if got.meta["size"] == size:
                    break
                if pause is None:
                    raise ObjectError(unlike(size, [got.meta["size"]]))
                await asyncio.sleep(pause)
            async for chunk in got.stream(min_chunk_size=1 << 20):
                yield bytes(chunk)

    async def pieces(self, key: str, size: int, version: int) -> AsyncGenerator[bytes]:
        """An object of a listed size and version. A large one is requested in ranges, since one request for all of it
        could take longer than a request may.
        """
        if size <= _RANGE_BYTES:
            yield await self.read(key, None, size, version)
            return
        options: Any = {}
        try:
            for start in range(0, 0 if is_odd(key) else size, _RANGE_BYTES):
                options["range"] = (start, min(start + _RANGE_BYTES, size))
                got = await obstore.get_async(self._store, key, options=options)
                if got.meta["size"] != size:
                    raise ObjectError(unlike(size, [got.meta["size"]]))
                if e_tag := got.meta["e_tag"]:
                    options["if_match"] = e_tag  # each range of the same object
                async for chunk in got.stream(min_chunk_size=1 << 20):
                    yield bytes(chunk)
            if options:
                return
        except Exception as error:  # the class of a Rust panic cannot be imported
            # Some servers answer with the whole object; obstore has no class for that.
            if "NotPartial" not in str(error):
                raise self._explain(error) from None
        async with aclosing(self.stream(key)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def write(self, key: str, data: bytes) -> None:
        """Write a whole object, visible only once it is complete."""
        with self._explained():
            await obstore.put_async(self._store, key, data, use_multipart=len(data) > _PUT_AT_ONCE)

    async def write_file(self, key: str, file: BinaryIO) -> None:
        """Write an object from an open file, in parts if it is large; visible only once it is complete."""
        with self._explained():
            await obstore.put_async(self._store, key, file, chunk_size=_PART_BYTES, max_concurrency=2)

    async def write_stream(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Write an object in parts, visible only once it is complete. If ``chunks`` raises, the upload is aborted."""
        with self._explained():
            # With a slow storage, at most four parts may wait in memory.
            await obstore.put_async(self._store, key, chunks, use_multipart=True, chunk_size=8 << 20, max_concurrency=4)

    async def size(self, key: str) -> int | None:
        """Size of an object in bytes; None if it does not exist."""
        try:
            if is_odd(key):
                return await self._odd_keys.size(key)
            head = await obstore.head_async(self._store, key)
            if head["e_tag"] is None:
                await self._refuse_page(key)
            return head["size"]
        except Exception as error:  # the class of a Rust panic cannot be imported
            explained = self._explain(error)
        if isinstance(explained, Missing):
            return None
        if isinstance(explained, RequestRefused) and not self._refusal_known:
            self._refusal_known = True  # a HEAD response has no body, so no error code; a listing's has
            await self._tell_refusal(key)
        raise explained from None

    async def _refuse_page(self, key: str) -> None:
        """Raises ObjectError if the response without an ETag is a web page, which some servers send for any request."""
        got = await obstore.get_async(self._store, key)
        async for chunk in got.stream():
            if is_page(bytes(chunk), key):
                raise ObjectError(no_s3(self._where))
            return

    async def _tell_refusal(self, key: str) -> None:
        try:
            await obstore.list_with_delimiter_async(self._store, f"{key}/")
        except Exception as error:
            detail = self._explain(error)
            if isinstance(detail, RequestRefused):
                raise detail from None

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise obstore's errors in the block as ObjectError."""
        try:
            yield
        except Exception as error:  # the class of a Rust panic cannot be imported
            raise self._explain(error) from None

    def _explain(self, error: Exception) -> Exception:
        """An error of obstore as an ObjectError; any other exception unchanged."""
        if isinstance(error, (BaseError, OSError, ValueError)) or type(error).__name__ in PANICS:
            return explain(error, self._where, self._credentials.shown_key)
        return error

    async def list(self, prefix: str) -> AsyncGenerator[tuple[str, int, int]]:
        """Key, size and version of every object below the folder ``prefix`` (the whole bucket for ""), recursively.

        In name order, without folder placeholders (objects whose key ends in a slash). Only a placeholder that is not
        empty and has nothing below it is included, without its slash: it cannot be distinguished from a file before it
        is read.
        """
        above: list[str] = []  # the last keys listed, each a prefix of the next
        held: tuple[str, int, int] | None = None
        async with aclosing(self._list(prefix)) as found:
            async for one in found:
                if held is not None and not (one[0].startswith(f"{held[0]}/") and await self._is_folder(held)):
                    yield held
                while above and not one[0].startswith(above[-1]):
                    above.pop()
                if above and above[-1] == one[0]:  # a placeholder next to the object of the same name
                    held = None
                    continue
                above.append(one[0])
                held = one
        if held is not None:
            yield held

    async def _is_folder(self, one: tuple[str, int, int]) -> bool:
        """Whether a listed object is a folder placeholder that is not empty; obstore drops its slash."""
        key, size, _ = one
        return size > 0 and not is_odd(key) and await self.size(key) is None

    async def _list(self, prefix: str) -> AsyncGenerator[tuple[str, int, int]]:
        """Like :meth:`list`, but with every placeholder that is not empty, without its slash."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        last = ""
        empty: list[str] = []
        if self.name.endswith(_DIRECTORY_BUCKET):
            found = [one async for one in self._odd_keys.list(folder, after=None)]
            for one in sorted(found):
                yield one
            return
        with self._explained(), suppress(InvalidPathError):
            async for page in obstore.list(self._store, folder or None, chunk_size=_PAGE_KEYS):
                for meta in page:
                    key, size = meta["path"], meta["size"]
                    if not key.startswith(folder) or (size == 0 and not await self._is_empty(key, empty)):
                        continue
                    last = key
                    yield key, size, version_of(meta["e_tag"])
            return
        async for one in self._odd_keys.list(folder, after=last):
            yield one

    async def _is_empty(self, key: str, empty: MutableSequence[str]) -> bool:
        """Whether a key of size 0 is an object not listed yet, and not a placeholder.

        obstore drops a placeholder's slash, so it looks like an empty object. An empty object of the same name may also
        exist. The two are not always adjacent, but both come before any key that sorts after the folder. ``empty`` are
        the empty objects whose placeholder may still come.
        """
        while empty and not key.startswith(empty[-1]):
            empty.pop()
        if (empty and empty[-1] == key) or await self.size(key) != 0:
            return False
        empty.append(key)
        return True

    async def has_below(self, key: str) -> bool:
        """Whether there is an object below the folder with the name of this key."""
        async with aclosing(self.list(key)) as found:
            async for _ in found:
                return True
        return False

    async def top(self, prefix: str, *, only_folders: bool = False) -> Sequence[str]:
        """Names of the objects and folders directly below the folder ``prefix``."""
        folder = f"{prefix.rstrip('/')}/" if prefix else ""
        try:
            found = await obstore.list_with_delimiter_async(self._store, folder or None)
        except InvalidPathError:
            parts = [one[0][len(folder) :].partition("/") async for one in self._odd_keys.list(folder, after=None)]
            return sorted({name for name, slash, _ in parts if slash or not only_folders})
        except Exception as error:  # the class of a Rust panic cannot be imported
            raise self._explain(error) from None
        names = {path[len(folder) :].rstrip("/") for path in found["common_prefixes"]}
        if not only_folders:
            names |= {meta["path"][len(folder) :] for meta in found["objects"]}
        return sorted(name for name in names if name)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; a missing one is no error."""
        for start in range(0, len(keys), 1000):
            with self._explained(), suppress(FileNotFoundError):
                await obstore.delete_async(self._store, [*keys[start : start + 1000]])

    async def make(self) -> None:
        """Make the bucket."""
        await self._odd_keys.make_bucket()

    async def abort_uploads(self, prefix: str) -> int:
        """Abort incomplete multipart uploads of keys with this prefix; returns their number."""
        return await self._odd_keys.abort_uploads(prefix)

    async def close(self) -> None:
        """Close s3fs's connections; obstore closes its own."""
        await self._odd_keys.close()
