"""HTTP to one instance: one request, one answer."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import aiohttp

from tasks.clients.http_headers import retry_after
from tasks.domain.request import Body
from tasks.domain.retry import Failure


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the status and the body."""

    status: int
    data: bytes


class RequestFailed(Exception):
    """A request that brought no success: what retry.decide needs, and the answer if there was one."""

    def __init__(self, failure: Failure, cause: str, answer: Answer | None = None) -> None:
        super().__init__(cause)
        self.failure = failure
        self.cause = cause
        self.answer = answer


class ModelClient:
    """Sends requests to one model server. Belongs to one event loop; ``close`` when done."""

    def __init__(
        self, url: str, method: str, request_path: str, timeout_seconds: float, max_answer_bytes: int = sys.maxsize
    ) -> None:
        self._url = url.rstrip("/") + request_path
        self._method = method
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, force_close=False),
            timeout=aiohttp.ClientTimeout(total=timeout_seconds, sock_connect=min(30.0, timeout_seconds)),
            headers={"Accept-Encoding": "identity"},  # result files are the answer, byte for byte
            auto_decompress=False,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._timeout_seconds = timeout_seconds
        self._max_answer_bytes = max_answer_bytes

    async def predict(self, body: Body) -> Answer:
        """Send one request; its answer if the status is a success (2xx). Raises RequestFailed."""
        try:
            async with self._session.request(
                self._method, self._url, data=body.data, headers={"Content-Type": body.content_type},
                allow_redirects=False,
            ) as response:  # fmt: skip
                size = response.content_length
                known = size is not None and size <= self._max_answer_bytes
                answer = Answer(response.status, await response.read() if known else await self._body(response, size))
                if 200 <= answer.status < 300:
                    return answer
                asked = retry_after(response.headers.get("Retry-After"))
        except TimeoutError:
            cause = f"no answer within {self._timeout_seconds:g} s"
            raise RequestFailed(Failure("timeout"), cause) from None
        except aiohttp.ClientConnectorError as error:
            cause = f"no connection ({error.os_error.strerror or 'unknown'})"
            raise RequestFailed(Failure("connection"), cause) from None
        except (aiohttp.ClientError, OSError) as error:
            closed = isinstance(error, (aiohttp.ServerDisconnectedError, ConnectionError))
            cause = "the connection was closed without an answer" if closed else "the answer broke off or is not HTTP"
            raise RequestFailed(Failure("connection"), cause) from None
        raise RequestFailed(Failure("status", answer.status, asked), f"HTTP {answer.status}", answer)

    async def _body(self, response: aiohttp.ClientResponse, announced: int | None) -> bytes:
        """A body of unknown size, piece by piece, or one that is refused. Raises RequestFailed."""
        limit = self._max_answer_bytes
        parts: list[bytes] = []
        size = announced or 0
        while size <= limit and (part := await response.content.readany()):
            parts.append(part)
            size += len(part)
        if size > limit:
            cause = f"The model's answer has more than {limit} bytes ({limit / (1 << 20):g} MiB)."
            raise RequestFailed(Failure("size"), cause)
        return b"".join(parts)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
