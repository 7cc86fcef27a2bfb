"""Requests that obstore cannot make, through s3fs (and so botocore): odd keys, new buckets, incomplete uploads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from tasks.clients.storage.failures import (
    Missing,
    ObjectError,
    RequestRefused,
    TooLarge,
    Unreachable,
    unlike,
    version_of,
)
from tasks.domain.credentials import Credentials


class OddKeys:
    """One bucket. Raises ObjectError."""

    def __init__(self, bucket: str, credentials: Credentials) -> None:
        self._bucket = bucket
        self._credentials = credentials
        self._filesystem: Any = None

    def _s3fs(self) -> Any:
        if self._filesystem is None:
            import s3fs  # takes half a second to import; only odd keys need it

            options = s3fs_options(self._credentials)
            self._filesystem = s3fs.S3FileSystem(asynchronous=True, loop=asyncio.get_running_loop(), **options)
        return self._filesystem

    async def call(self, verb: str, **arguments: Any) -> Any:
        """A call of botocore's S3 client."""
        filesystem = self._s3fs()
        with _explained():
            await filesystem.set_session()
            return await filesystem._call_s3(verb, Bucket=self._bucket, **arguments)

    async def get(self, key: str, max_bytes: int | None) -> tuple[bytes, str | None]:
        """An object and its ETag; None if the response has no ETag. Raises TooLarge before the download."""
        answer = await self.call("get_object", Key=key)
        with _explained():
            async with answer["Body"] as body:
                if max_bytes is not None and answer["ContentLength"] > max_bytes:
                    raise TooLarge(answer["ContentLength"])
                return bytes(await body.read()), answer.get("ETag")

    async def stream(self, key: str, size: int) -> AsyncGenerator[bytes]:
        """An object of ``size`` bytes, piece by piece."""
        answer = await self.call("get_object", Key=key)
        if answer["ContentLength"] != size:
            raise ObjectError(unlike(size, [answer["ContentLength"]]))
        with _explained():
            async with answer["Body"] as body:
                while chunk := await body.read(1 << 20):
                    yield bytes(chunk)

    async def size(self, key: str) -> int:
        """Size of an object in bytes."""
        return int((await self.call("head_object", Key=key))["ContentLength"])

    async def list(self, folder: str, after: str | None) -> AsyncIterator[tuple[str, int, int]]:
        """Key, size and version of every object below a prefix, in the storage's order, without empty folder
        placeholders.

        Other placeholders are listed without their slash, as by obstore.
        """
        where = {"StartAfter": after} if after else {}
        while True:
            page = await self.call("list_objects_v2", Prefix=folder, **where)
            for entry in page.get("Contents", ()):
                key, size = entry["Key"], entry["Size"]
                if key.endswith("/"):
                    key = key[:-1]
                    if not size or len(key) <= len(folder) or key.endswith("/"):
                        continue
                yield key, size, version_of(entry.get("ETag"))
            if not page.get("NextContinuationToken"):
                return
            where = {"ContinuationToken": page["NextContinuationToken"]}

    async def is_listed(self, key: str, size: int, version: int) -> bool:
        """Whether a listing shows this size and version of an object now."""
        page = await self.call("list_objects_v2", Prefix=key, MaxKeys=1)  # no key sorts between a prefix and itself
        found = [(one["Key"], one["Size"], version_of(one.get("ETag"))) for one in page.get("Contents", ())]
        return found == [(key, size, version)]

    async def make_bucket(self) -> None:
        """Make the bucket, in the region of the credentials."""
        region = self._credentials.region or "us-east-1"
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        await self.call("create_bucket", **where)

    async def abort_uploads(self, prefix: str) -> int:
        """Abort incomplete multipart uploads of keys with this prefix; returns their number.

        A storage that does not support this call, or refuses it, keeps them.
        """
        aborted = 0
        where: dict[str, Any] = {}
        while True:
            try:
                page = await self.call("list_multipart_uploads", Prefix=prefix, **where)
                for upload in page.get("Uploads", ()):
                    if upload["Key"].startswith(prefix):
                        await self.call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
                        aborted += 1
            except ObjectError:
                return aborted
            if not page.get("IsTruncated") or not page.get("NextKeyMarker"):
                return aborted
            where = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page.get("NextUploadIdMarker", "")}

    async def close(self) -> None:
        """Close its connections."""
        if self._filesystem is not None:
            filesystem, self._filesystem = self._filesystem, None
            if filesystem._s3 is not None:
                await filesystem._s3.close()


@contextmanager
def _explained() -> Iterator[None]:
    """Raise errors in the block as ObjectError: s3fs lets botocore's and aiohttp's through."""
    try:
        yield
    except TooLarge:
        raise
    except Exception as error:
        raise explain_odd(error) from None


def explain_odd(error: BaseException) -> ObjectError:
    """An error of s3fs or botocore as an ObjectError of one line."""
    from botocore.exceptions import ConnectionError as NotConnected
    from botocore.exceptions import HTTPClientError

    answer = getattr(error.__cause__, "response", None) or {}
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    if isinstance(error, FileNotFoundError) or status == 404:
        return Missing("There is no such object (HTTP 404).")
    if isinstance(error, PermissionError) or status in (401, 403):
        return RequestRefused(f"No permission (HTTP {status or 403}).")
    if isinstance(error, TimeoutError):
        return Unreachable("The storage did not answer in time.")
    if isinstance(error, (ConnectionError, NotConnected, HTTPClientError)):
        return Unreachable("The storage cannot be reached.")
    failed = RequestRefused if status == 400 else ObjectError
    return failed(f"The storage failed: {f'HTTP {status}' if status else type(error).__name__}.")


def s3fs_options(credentials: Credentials) -> dict[str, Any]:
    """Credentials as options of s3fs."""
    client: dict[str, Any] = {"region_name": credentials.region} if credentials.region else {}
    style = "virtual" if credentials.virtual_hosted else "path"
    return {
        "key": credentials.access_key_id,
        "secret": plain(credentials.secret_access_key),
        "token": plain(credentials.session_token),
        "anon": credentials.anonymous,
        "endpoint_url": credentials.endpoint_url,
        "client_kwargs": client,
        "config_kwargs": {
            "s3": {"addressing_style": style},
            # Servers of other vendors do not support the newer checksums.
            "request_checksum_calculation": "when_required",
            "response_checksum_validation": "when_required",
        },
        "skip_instance_cache": True,
    }


def plain(secret: Any) -> str | None:
    """A secret's text."""
    return None if secret is None else secret.get_secret_value()
