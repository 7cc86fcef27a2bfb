"""Share links as an object store issues them, signed for a limited time, and everything that can go wrong with them.

with ShareServer({"1.jpg": b"..."}) as share:
    requests.get(share.link("1.jpg")); requests.get(share.link("1.jpg", valid_seconds=-1))  # 200, 403

| path | answer |
| --- | --- |
| /object/<name>?Expires=..&Signature=.. | the bytes; 403 with OBS's XML when expired or wrongly signed; 404 unknown |
| /missing | 404 with XML |
| /redirect?to=URL | 302 |
| /slow?seconds=S | 200 after S seconds (default 5) |
| /flaky?times=N | 503 that many times (by query), then 200 |
| /big?size=N | N bytes, streamed; `&chunked=1` leaves Content-Length out, `&cut=1` breaks off half-way |
"""

from __future__ import annotations

import base64
import hmac
import threading
import time
from collections import Counter
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlencode

ERROR = (
    '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
    "<Error><Code>{code}</Code><Message>{message}</Message><RequestId>0001</RequestId></Error>"
)


class ShareServer:
    """The server in threads of this process; `objects` is the live content."""

    def __init__(self, objects: Mapping[str, bytes] | None = None) -> None:
        self.objects = dict(objects or {})
        self.requests: Counter[str] = Counter()
        """Requests by path, without the query."""
        self.failures: Counter[str] = Counter()
        self._secret = b"share-secret"
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._over = threading.Event()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()

    def link(self, name: str, valid_seconds: float = 300.0) -> str:
        """A signed link to an object; a negative period gives one that has expired."""
        expires = str(int(time.time() + valid_seconds))
        query = urlencode({"AccessKeyId": "SHARE", "Expires": expires, "Signature": self.sign(name, expires)})
        return f"{self.url}/object/{quote(name)}?{query}"

    def sign(self, name: str, expires: str) -> str:
        """The signature of a link."""
        digest = hmac.digest(self._secret, f"GET\n\n\n{expires}\n/{name}".encode(), "sha1")
        return base64.b64encode(digest).decode()

    def sleep(self, seconds: float) -> None:
        """Wait, but no longer than the server runs."""
        self._over.wait(seconds)


def _handler(owner: ShareServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet for head and body

        def log_message(self, format: str, *args: Any) -> None:
            """Print nothing."""

        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            owner.requests[path] += 1
            options = {name: values[0] for name, values in parse_qs(query).items()}
            if path.startswith("/object/"):
                self.object(unquote(path.removeprefix("/object/")), options)
            elif path == "/redirect":
                self.answer(302, location=options["to"])
            elif path == "/slow":
                owner.sleep(float(options.get("seconds", 5)))
                self.answer(200, b"late")
            elif path == "/flaky":
                owner.failures[query] += 1
                failed = owner.failures[query] <= int(options.get("times", 1))
                self.error(503, "ServiceUnavailable", "Please try again.") if failed else self.answer(200, b"at last")
            elif path == "/big":
                self.stream(int(options["size"]), "chunked" in options, "cut" in options)
            else:
                self.error(404, "NoSuchKey", "The specified key does not exist.")

        do_HEAD = do_GET

        def object(self, name: str, options: dict[str, str]) -> None:
            expires = options.get("Expires", "0")
            if not hmac.compare_digest(options.get("Signature", ""), owner.sign(name, expires)):
                self.error(403, "SignatureDoesNotMatch", "The signature does not match.")
            elif int(expires) < time.time():
                self.error(403, "AccessDenied", "Request has expired")
            elif name not in owner.objects:
                self.error(404, "NoSuchKey", "The specified key does not exist.")
            else:
                self.answer(200, owner.objects[name])

        def error(self, status: int, code: str, message: str) -> None:
            self.answer(status, ERROR.format(code=code, message=message).encode(), kind="application/xml")

        def answer(
            self, status: int, body: bytes = b"", *, location: str = "", kind: str = "application/octet-stream"
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def stream(self, size: int, chunked: bool, cut: bool) -> None:
            self.send_response(200)
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(size))))
            self.end_headers()
            if self.command == "HEAD":
                return
            left = size // 2 if cut else size
            while left:
                piece = b"x" * min(left, 65536)
                left -= len(piece)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
            if cut:
                self.close_connection = True
            elif chunked:
                self.wfile.write(b"0\r\n\r\n")

    return Handler
