"""HTTP as the built-in model server reads it: bodies in chunks, several requests at once, and what is no request."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from fakes.processes import DEADLINE_SECONDS

# The fixtures of conftest.py; their types are written out here because tests are no package.
StartServer = Any
WritePackage = Any

ECHO = """
from model_service.model_service import SingleNodeService
class Echo(SingleNodeService):
    def _inference(self, data): return {"got": data}
"""
HEAD = b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@pytest.fixture
def server(write_package: WritePackage, start_server: StartServer) -> Any:
    return start_server(write_package(ECHO)).ready()


def read_answer(file: Any) -> tuple[int, dict[str, str], bytes]:
    """The next answer of a connection."""
    status = int(file.readline().split()[1])
    headers = {}
    while line := file.readline().decode().strip():
        name, _, value = line.partition(": ")
        headers[name] = value
    return status, headers, file.read(int(headers.get("content-length", 0)))


def answers(server: Any, *pieces: bytes, count: int = 1) -> list[tuple[int, dict[str, str], bytes]]:
    """The answers to bytes that are sent piece by piece on one connection."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
        with connection.makefile("rb") as file:
            return [read_answer(file) for _ in range(count)]


def request(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return HEAD + b"Content-Length: %d\r\n\r\n%s" % (len(body), body)


@pytest.mark.parametrize(
    "chunks",
    [
        b'5\r\n{"a":\r\n2\r\n1}\r\n0\r\n\r\n',
        b'7;name=value\r\n{"a":1}\r\n0\r\nX-Trailer: 1\r\n\r\n',
        b'007\r\n{"a":1}\r\n000\r\n\r\n',
    ],
)
def test_body__may_come_in_chunks(server: Any, chunks: bytes) -> None:
    whole = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
    ((status, _, body),) = answers(server, whole)
    assert (status, json.loads(body)) == (200, {"got": {"a": 1}})
    # Byte by byte, and with another request after it.
    first, second = answers(server, *(whole[at : at + 1] for at in range(len(whole))), request(2), count=2)
    assert (first[2], json.loads(second[2])) == (body, {"got": 2})


def test_requests__sent_at_once_are_answered_in_their_order(server: Any) -> None:
    found = answers(server, b"".join(request(number) for number in range(20)), count=20)
    assert [json.loads(body) for _, _, body in found] == [{"got": number} for number in range(20)]


def test_client__may_send_far_ahead_of_the_answers(server: Any) -> None:
    texts = [str(number) * 100_000 for number in range(10)]
    found = answers(server, b"".join(map(request, texts)), count=10)
    assert [json.loads(body)["got"] for _, _, body in found] == texts


def test_client__that_asks_before_it_sends_the_body_is_told_to_go_on(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(HEAD + b"Content-Length: 1\r\nExpect: 100-continue\r\n\r\n")
        with connection.makefile("rb") as file:
            assert (file.readline(), file.readline()) == (b"HTTP/1.1 100 Continue\r\n", b"\r\n")
            connection.sendall(b"7")
            assert json.loads(read_answer(file)[2]) == {"got": 7}


@pytest.mark.parametrize(
    ("sent", "closes"),
    [
        (HEAD + b"Content-Length: 1\r\n\r\n1", False),
        (HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\n1", True),
        (b"POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\n1", True),
        (b"POST http://127.0.0.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\n1", False),
        (b"\r\n\r\n" + HEAD + b"Content-Length: 1\r\n\r\n1", False),
    ],
)
def test_connection__stays_open_unless_the_client_says_otherwise(server: Any, sent: bytes, closes: bool) -> None:
    ((status, headers, _),) = answers(server, sent)
    assert (status, headers.get("connection") == "close") == (200, closes)


def test_head__has_the_length_of_the_answer_but_not_its_body(server: Any) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE_SECONDS) as connection:
        connection.sendall(b"HEAD /health HTTP/1.1\r\n\r\nGET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
        with connection.makefile("rb") as file:
            head, _, rest = file.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n") and b"content-length: " in head
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
        (b"POST /\r\n\r\n", 400),
        (b"POST / HTTP/1.1 x\r\n\r\n", 400),
        (b"POST / HTTP/2.0\r\n\r\n", 505),
        (HEAD + b"no colon\r\n\r\n", 400),
        (HEAD + b" folded: 1\r\n\r\n", 400),
        (HEAD + b"Content-Length: -1\r\n\r\n", 400),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n1", 400),
        (HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 70_000, 400),
        (HEAD + b"X: " + b"x" * 70_000, 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"x" * 70_000, 431),
    ],
)
def test_bytes__that_are_no_request_are_refused_and_the_server_goes_on(server: Any, sent: bytes, status: int) -> None:
    ((got, headers, body),) = answers(server, sent)
    assert (got, headers["connection"]) == (status, "close")
    assert set(json.loads(body)) == {"error"}
    assert server.post({"a": 1}).json() == {"got": {"a": 1}}
