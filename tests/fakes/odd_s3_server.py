"""An S3 server in memory for cases that a real one cannot show: keys that rclone refuses, and faults on demand.

`S3Server` (rclone) stores keys as files, so keys such as `a//b`, `../up`, `dir/` or `a/./b`, all of them legal in S3
and OBS, cannot exist there. This one keeps a dictionary, compares keys byte by byte, and records each request as
received. It does not check signatures.

with OddS3Server({"data": {"in//1.jpg": b"..."}}) as s3:
    s3.fail_next(503, times=2)
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote_plus, unquote
from xml.sax.saxutils import escape

NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
LAST_MODIFIED = "2024-01-02T03:04:05.000Z"
PIECE = 1 << 20


class OddS3Server:
    """The server in a thread of this process; `buckets` is the live content: {bucket: {key: bytes}}."""

    def __init__(self, buckets: Mapping[str, Mapping[str, bytes]] | None = None, *, page_size: int = 1000) -> None:
        self.buckets: dict[str, dict[str, bytes]] = {name: dict(keys) for name, keys in (buckets or {}).items()}
        self.page_size = page_size
        self.lines: list[str] = []
        """Each request received, as `METHOD raw-target`, in order."""
        self.headers: list[dict[str, str]] = []
        """The headers of the same requests, names in lower case."""
        self.sent: Counter[str] = Counter()
        """Bytes of bodies handed to the connection, by raw target, without those that the client did not take."""
        self.uploads: dict[str, dict[int, bytes]] = {}
        self.keys_of_uploads: dict[str, str] = {}
        self.delay_seconds = 0.0
        self.ranges = False
        """Whether a requested range is answered with that range, as by S3, or with the whole object."""
        self._faults: list[int] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self) -> dict[str, str]:
        """The variables that direct an S3 client here; any key and secret will do."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "anyone",
            "AWS_SECRET_ACCESS_KEY": "anything",
            "AWS_REGION": "us-east-1",
        }

    def fail_next(self, status: int, times: int = 1) -> None:
        """Answer the next `times` requests with this status; 0 closes the connection without a response."""
        self._faults += [status] * times

    def object_body(self, key: str, data: bytes) -> tuple[bytes, bool]:
        """The body of the response to a GET of an object, and whether it has an ETag."""
        return data, True

    def etag(self, key: str, data: bytes, *, listed: bool) -> str:
        """The ETag of an object, in a listing or with the object."""
        return _etag(data)

    def uploads_of(self, prefix: str) -> str:
        """One page of ListMultipartUploads."""
        found = [(key, upload) for upload, key in self.keys_of_uploads.items() if upload in self.uploads]
        shown = "".join(
            f"<Upload><Key>{escape(key)}</Key><UploadId>{upload}</UploadId></Upload>"
            for key, upload in sorted(found)
            if key.startswith(prefix)
        )
        name = "ListMultipartUploadsResult"
        return f"<{name} {NAMESPACE}><IsTruncated>false</IsTruncated>{shown}</{name}>"

    def take_fault(self) -> int | None:
        """The fault due now, if any."""
        return self._faults.pop(0) if self._faults else None

    def listing(self, bucket: str, query: Mapping[str, str]) -> str:
        """One page of ListObjectsV2, with keys in byte order, as in S3 and OBS."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        after = query.get("continuation-token") or query.get("start-after", "")
        names = sorted((key for key in self.buckets[bucket] if key.startswith(prefix)), key=lambda key: key.encode())
        names = [key for key in names if key.encode() > after.encode()]
        size = min(self.page_size, int(query.get("max-keys", 1000)))
        page, rest = names[:size], names[size:]
        write = quote_plus if query.get("encoding-type") == "url" else escape
        contents, folders = [], dict[str, None]()
        for key in page:
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            if cut >= 0:
                folders[key[: cut + len(delimiter)]] = None
                continue
            contents.append(
                f"<Contents><Key>{write(key)}</Key><LastModified>{LAST_MODIFIED}</LastModified>"
                f'<ETag>"{self.etag(key, self.buckets[bucket][key], listed=True)}"</ETag>'
                f"<Size>{len(self.buckets[bucket][key])}</Size></Contents>"
            )
        contents += [f"<CommonPrefixes><Prefix>{write(name)}</Prefix></CommonPrefixes>" for name in folders]
        encoding = "<EncodingType>url</EncodingType>" if write is quote_plus else ""
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if rest else ""
        return (
            f"<ListBucketResult {NAMESPACE}><Name>{bucket}</Name>{encoding}<KeyCount>{len(page)}</KeyCount>"
            f"<IsTruncated>{str(bool(rest)).lower()}</IsTruncated>{''.join(contents)}{more}</ListBucketResult>"
        )


def _etag(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()


def _error(code: str) -> str:
    return f"<?xml version='1.0' encoding='UTF-8'?><Error><Code>{code}</Code><Message>{code}</Message></Error>"


def _handler(owner: OddS3Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for head and body

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

        def handle_expect_100(self) -> bool:
            proceed = super().handle_expect_100()
            self.wfile.flush()
            return proceed

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            owner.lines.append(f"{self.command} {self.path}")
            owner.headers.append({name.lower(): value for name, value in self.headers.items()})
            time.sleep(owner.delay_seconds)
            fault = owner.take_fault()
            if fault == 0:
                self.close_connection = True
                return
            if fault:
                self.answer(fault, _error("Injected").encode())
                return
            path, _, query = self.path.partition("?")
            bucket, _, key = path.lstrip("/").partition("/")
            options = {name: values[0] for name, values in parse_qs(query, keep_blank_values=True).items()}
            if bucket not in owner.buckets and not (self.command == "PUT" and not key):
                self.answer(404, _error("NoSuchBucket").encode())
            elif not key:
                self.bucket(bucket, options)
            else:
                self.object(owner.buckets[bucket], unquote(key), options, body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = handle_request

        def bucket(self, bucket: str, options: dict[str, str]) -> None:
            if self.command == "PUT":
                owner.buckets.setdefault(bucket, {})
                self.answer(200)
            else:
                found = (
                    owner.listing(bucket, options) if "uploads" not in options else owner.uploads_of(options["prefix"])
                )
                self.answer(200, found.encode())

        def object(self, keys: dict[str, bytes], key: str, options: dict[str, str], body: bytes) -> None:
            upload = options.get("uploadId", "")
            if self.command == "POST" and "uploads" in options:
                upload = f"upload-{len(owner.keys_of_uploads)}"
                owner.uploads[upload] = {}
                owner.keys_of_uploads[upload] = key
                self.answer_xml("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>")
            elif self.command == "POST":
                keys[key] = b"".join(part for _, part in sorted(owner.uploads.pop(upload).items()))
                self.answer_xml("CompleteMultipartUploadResult", f"<ETag>{_etag(keys[key])}</ETag>")
            elif self.command == "PUT" and upload:
                owner.uploads[upload][int(options["partNumber"])] = body
                self.answer(200, etag=_etag(body))
            elif self.command == "PUT":
                keys[key] = body
                self.answer(200, etag=_etag(body))
            elif self.command == "DELETE":
                owner.uploads.pop(upload, None) if upload else keys.pop(key, None)
                self.answer(204)
            elif key not in keys:
                self.answer(404, _error("NoSuchKey").encode())
            elif self.command == "HEAD":
                self.answer(200, keys[key], etag=owner.etag(key, keys[key], listed=False))
            else:
                data, whole = owner.object_body(key, keys[key])
                etag = owner.etag(key, data, listed=False) if whole else ""
                span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if owner.ranges else None
                if span is None:
                    self.answer(200, data, etag)
                elif self.headers.get("If-Match", f'"{etag}"') != f'"{etag}"':
                    self.answer(412, _error("PreconditionFailed").encode())
                else:
                    start, last = int(span[1]), min(int(span[2]), len(data) - 1)
                    self.answer(206, data[start : last + 1], etag, f"bytes {start}-{last}/{len(data)}")

        def answer_xml(self, name: str, content: str) -> None:
            self.answer(200, f"<{name} {NAMESPACE}>{content}</{name}>".encode())

        def answer(self, status: int, body: bytes = b"", etag: str = "", span: str = "") -> None:
            self.send_response(status)
            self.send_header("Last-Modified", "Tue, 02 Jan 2024 03:04:05 GMT")
            if status != 204:
                self.send_header("Content-Length", str(len(body)))
            if etag:
                self.send_header("ETag", f'"{etag}"')
            if span:
                self.send_header("Content-Range", span)
            self.end_headers()
            if self.command != "HEAD":
                for start in range(0, len(body), PIECE):
                    self.wfile.write(body[start : start + PIECE])
                    owner.sent[self.path] += len(body[start : start + PIECE])

    return Handler
