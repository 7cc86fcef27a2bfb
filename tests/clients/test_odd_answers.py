"""Answers of odd shape and size: read as HTTP has them, or given up within bounds; the connection stays in step."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import pytest
from clients.support import run
from clients.test_http_connection import BODY, BROKEN, OK, ask, kind, saying, saying_and_closing, serving
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.model_http.connections import Reuse
from tasks.clients.model_http.http_connection import MAX_HEADER_BYTES
from tasks.clients.model_http.model_server import Answer, ModelClient, RequestFailed
from tasks.domain.request import Body

CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
UNCLEAR = "The model's answer has more bytes than its Content-Length or its chunks say, so it may be cut."


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def with_length(data: bytes, headers: bytes = b"", status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n%b" % (status, headers, len(data), data)


# --- lengths


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 3\r\nContent-Length: 2\r\n", b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", b"Content-Length: -2\r\n", b"Content-Length: +2\r\n",
        b"Content-Length: 2, 2\r\n", b"Content-Length: 0x2\r\n", b"Content-Length:\r\n", b"Content-Length: 2_0\r\n",
        b"Content-Length: 99999999999999999999999999\r\n", b"Transfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: chunked, gzip\r\n",
        b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
    ],
)  # fmt: skip
def test_length__that_contradicts_itself_or_is_none_breaks_the_connection(head: bytes) -> None:
    found, _ = ask(saying_and_closing(OK + head + b"\r\n2\r\nhi\r\n0\r\n\r\n"))
    assert kind(found[0]) == ("connection", BROKEN)


@pytest.mark.parametrize(
    "chunks",
    [
        b"1\r\nhi\r\n0\r\n\r\n",
        b"-1\r\nhi\r\n",
        b"0x2\r\nhi\r\n",
        b"f" * 17 + b"\r\nhi",
        b"2 2\r\nhi\r\n",
        b"\r\n2\r\nhi",
    ],
)
def test_chunk__whose_size_is_wrong_breaks_the_connection(chunks: bytes) -> None:
    found, _ = ask(saying_and_closing(CHUNKED + chunks))
    assert kind(found[0]) == ("connection", BROKEN)


@pytest.mark.parametrize("rest", [b"\n", b"\n\n", b"\r", b"\r\n\r\n", b"x", b"hi", b"{}"])
@pytest.mark.parametrize("headers", [b"", b"Connection: close\r\n"])
@pytest.mark.parametrize("glued", [True, False])
def test_bytes__after_an_answer_fail_it(rest: bytes, headers: bytes, glued: bool) -> None:
    whole = with_length(b"ok", headers)
    found, _ = ask(saying(whole + rest) if glued else saying(whole, rest), times=3)
    answered = [one for one in found if isinstance(one, Answer)]
    assert all(kind(one) == ("unusable", UNCLEAR) for one in found if isinstance(one, RequestFailed))
    assert all(one.stretch.doubted for one in answered)  # it is sent again, and fails then
    assert len(answered) < 3


@pytest.mark.parametrize("pieces", [[with_length(b"ok") + b"\r\n"], [with_length(b"ok"), b"\r\n"]])
def test_line_end__after_an_answer_is_none_of_it(pieces: list[bytes]) -> None:
    found, server = ask(saying(*pieces), times=3)
    assert found == [Answer(200, b"ok")] * 3
    assert server.connections == 1


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
def test_status__that_has_no_body_keeps_in_step_whatever_its_length_says(status: bytes) -> None:
    asked = 0

    async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: 5\r\n\r\n" % status if asked == 1 else with_length(b"%d" % asked))

    found, server = ask(talk, times=3)
    assert found[1:] == [Answer(200, b"2"), Answer(200, b"3")]
    assert server.connections == 1


def test_word__with_which_a_server_closes_an_idle_connection_is_no_doubt() -> None:
    async def work() -> tuple[Answer, Reuse]:
        async with serving(saying(with_length(b"ok"), b"HTTP/1.1 408 Request Timeout\r\n\r\n")) as server:
            reuse = Reuse()
            client = ModelClient(server.url, "POST", "/", DEADLINE_SECONDS, reuse=reuse)
            answer = await client.predict(BODY)
            while client.connections.open:
                await asyncio.sleep(0.001)
            await client.close()
            return answer, reuse

    answer, reuse = run(work())
    assert not answer.stretch.doubted
    assert reuse.allowed


def test_answer__to_a_request_that_was_not_sent_yet_is_not_taken() -> None:
    """The end of a large request is not read before the answer to it, which is a copy of the one before, is there."""

    async def work() -> list[bytes]:
        asked = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal asked
            while head := await reader.readuntil(b"\r\n\r\n"):
                asked += 1
                size = int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0])
                if asked == 2:
                    writer.write(with_length(b"1"))
                await reader.readexactly(size)
                writer.write(with_length(b"%d" % asked))

        async with await asyncio.start_server(connected, "127.0.0.1", 0, limit=64 << 20) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            client = ModelClient(url, "POST", "/", DEADLINE_SECONDS)
            first = await client.predict(BODY)
            large = await client.predict(Body("a/b", (b"x" * (32 << 20),)))
            await client.close()
            return [first.data, large.data]

    assert run(work()) == [b"1", b"3"]


# --- statuses and versions


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1 000 x", b"HTTP/1.1 050 x", b"HTTP/1.1 99 x", b"HTTP/1.1 2000 x", b"HTTP/1.1 -20 x", b"HTTP/1.1 abc",
        b"HTTP/2.0 200 OK", b"HTTP/2 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK", b"ICY 200 OK",
        b"PRI * HTTP/2.0\r\n\r\nSM", b"<html>hello", b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    ],
)  # fmt: skip
def test_first_line__that_is_none_of_this_http_breaks_the_connection(line: bytes) -> None:
    found, _ = ask(saying_and_closing(line + b"\r\nContent-Length: 2\r\n\r\nhi"))
    assert kind(found[0]) == ("connection", BROKEN)


@pytest.mark.parametrize("status", [b"600 x", b"999 x"])
def test_status__beyond_those_of_http_is_no_success(status: bytes) -> None:
    found, _ = ask(saying(with_length(b"hi", status=status)))
    assert isinstance(found[0], RequestFailed)
    assert found[0].failure.status == int(status[:3])


# --- sizes


@pytest.mark.parametrize(
    ("first", "endless"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), (OK, b"A: b\r\n"), (OK + b"A: ", b"b"),
        (CHUNKED + b"2\r\nhi\r\n0\r\n", b"A: b\r\n"), (CHUNKED + b"2\r\nhi\r\n0\r\nA: ", b"b"),
        (CHUNKED + b"2;a=", b"b"), (CHUNKED + b"0", b"0"), (b"HTTP/1.1 200 ", b"OK"),
    ],
)  # fmt: skip
def test_endless__headers_and_the_like_are_given_up(first: bytes, endless: bytes) -> None:
    written = 0

    async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(first)
        piece = endless * (4096 // len(endless))
        while not writer.is_closing() and written < 50 << 20:
            writer.write(piece)
            written += len(piece)
            await writer.drain()

    found, _ = ask(talk)
    assert kind(found[0])[0] == "connection"
    assert written < 50 << 20


def test_patience__that_is_asked_for_many_times_is_given() -> None:
    found, _ = ask(saying(*[b"HTTP/1.1 102 Processing\r\n\r\n"] * 1000, with_length(b"hi")))
    assert found == [Answer(200, b"hi")]
    assert 1000 * len(b"HTTP/1.1 102 Processing\r\n\r\n") < MAX_HEADER_BYTES


def test_answer__that_comes_byte_by_byte_is_late_in_all() -> None:
    async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
        for byte in with_length(b"x" * 100):
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)

    found, _ = ask(talk, timeout_seconds=0.5)
    assert kind(found[0]) == ("timeout", "no answer within 0.5 s")


# --- encodings


def gzipped(data: bytes) -> bytes:
    return with_length(packed(data), b"Content-Encoding: gzip\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        gzipped(b"hello"), with_length(zlib.compress(b"hello"), b"content-encoding:  Deflate \r\n"),
        with_length(b"hello", b"Content-Encoding: identity\r\n"), gzipped(b"hello").replace(b"gzip", b"x-gzip"),
    ],
)  # fmt: skip
def test_answer__that_is_encoded_is_decoded(answer: bytes) -> None:
    found, server = ask(saying(answer), times=2)
    assert found == [Answer(200, b"hello")] * 2
    assert server.connections == 1


@pytest.mark.parametrize("name", [b"br", b"zstd", b"gzip, gzip"])
def test_answer__in_an_encoding_that_is_not_known_fails_at_once(name: bytes) -> None:
    found, _ = ask(saying(with_length(b"hello", b"Content-Encoding: %b\r\n" % name)))
    assert kind(found[0])[0] == "unusable"
    assert f"Content-Encoding '{name.decode()}'" in kind(found[0])[1]


def test_answer__that_is_large_when_decoded_is_given_up() -> None:
    found, _ = ask(saying(gzipped(bytes(32 << 20))), max_bytes=1 << 20)
    assert kind(found[0]) == (
        "unusable",
        "The model's answer has more than 1048576 bytes (1 MiB) when its gzip encoding is undone.",
    )


@pytest.mark.parametrize("spoil", [lambda data: data[:-4], lambda data: data[:-8] + bytes(8), lambda data: data + b"x"])
def test_answer__whose_encoding_is_damaged_fails(spoil: Callable[[bytes], bytes]) -> None:
    data = spoil(packed(b"hello" * 100))
    found, _ = ask(saying(with_length(data, b"Content-Encoding: gzip\r\n")))
    assert kind(found[0])[0] == "unusable"
    assert "is damaged" in kind(found[0])[1]


def test_error__that_is_encoded_is_decoded_for_its_message_as_far_as_it_can_be() -> None:
    headers = b"Content-Encoding: gzip\r\n"
    found, _ = ask(saying(with_length(packed(b"too hot"), headers, b"418 Teapot")))
    assert isinstance(found[0], RequestFailed) and found[0].answer == Answer(418, b"too hot")
    found, _ = ask(saying(with_length(b"too hot", headers, b"418 Teapot")))
    assert isinstance(found[0], RequestFailed) and found[0].answer == Answer(418, b"too hot")
