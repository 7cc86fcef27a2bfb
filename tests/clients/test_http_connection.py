"""One connection to a model server, against servers that do what HTTP allows, and what it does not."""

from __future__ import annotations

import asyncio

import pytest
from clients.support import run
from clients.talking import BODY, OK, Server, Talk, kind, saying, serving
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.model_http.health import ask_health
from tasks.clients.model_http.http_connection import MAX_HEADER_BYTES
from tasks.clients.model_http.model_server import Answer, ModelClient, RequestFailed
from tasks.domain.request import Body


def ask(
    talk: Talk, times: int = 1, *, timeout_seconds: float = DEADLINE_SECONDS, max_bytes: int = 1 << 20
) -> tuple[list[Answer | RequestFailed], Server]:
    """The answers to so many requests, one after the other."""

    async def work() -> tuple[list[Answer | RequestFailed], Server]:
        async with serving(talk) as server:
            client = ModelClient(server.url, "POST", "/p?q=1", timeout_seconds, max_bytes)
            found: list[Answer | RequestFailed] = []
            for _ in range(times):
                try:
                    found.append(await client.predict(BODY))
                except RequestFailed as failed:
                    found.append(failed)
            await client.close()
            return found, server

    return run(work())


def saying_and_closing(*pieces: bytes) -> Talk:
    """The same, and then it closes."""

    async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
        await saying(*pieces)(body, writer)
        writer.write_eof()
        writer.close()
        await writer.wait_closed()

    return talk


@pytest.mark.parametrize(
    ("pieces", "data"),
    [
        ([OK + b"Content-Length: 5\r\n\r\nhello"], b"hello"),
        ([OK + b"content-length: 5\r\n\r\n", b"he", b"llo"], b"hello"),
        ([OK[:9], OK[9:], b"Content-Length", b": 5\r\n", b"\r", b"\nhello"], b"hello"),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n", b"2\r\nlo\r\n0\r\n", b"\r\n"], b"hello"),
        ([OK + b"Content-Length: 0\r\n\r\n"], b""),
        ([b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"], b"hello"),
        ([OK + b"A: b\r\n c\r\ncontent-length : 5\r\n\r\nhello"], b"hello"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Length: 2\r\n\r\nhi"], b"hi"),
        ([b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nhi"], b"hi"),
    ],
)  # fmt: skip
def test_answer__is_read_whole_however_it_comes_and_the_connection_kept(pieces: list[bytes], data: bytes) -> None:
    found, server = ask(saying(*pieces), times=3)
    assert [one.data for one in found if isinstance(one, Answer)] == [data] * 3
    assert server.connections == 1


@pytest.mark.parametrize(
    "head",
    [
        OK + b"\r\n",  # the body ends with the connection
        OK + b"Connection: close\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
def test_answer__that_ends_the_connection_is_followed_by_a_new_one(head: bytes) -> None:
    found, server = ask(saying_and_closing(head + b"he", b"llo"), times=3)
    assert [one.data for one in found if isinstance(one, Answer)] == [b"hello"] * 3
    assert server.connections == 3


def test_request__is_what_it_should_be() -> None:
    _, server = ask(saying(OK + b"Content-Length: 0\r\n\r\n"))
    host = server.url.removeprefix("http://").encode()
    first, *others = server.heads[0].removesuffix(b"\r\n\r\n").split(b"\r\n")
    assert first == b"POST /p?q=1 HTTP/1.1"
    assert sorted(others) == [
        b"Accept-Encoding: identity", b"Accept: */*", b"Content-Length: 12", b"Content-Type: a/b", b"Host: " + host,
        b"User-Agent: thresher",
    ]  # fmt: skip


BROKEN = "the answer broke off or is not HTTP"


CLOSED = "the connection was closed without an answer"


@pytest.mark.parametrize(
    ("pieces", "cause"),
    [
        ([], CLOSED),
        ([OK], BROKEN),
        ([OK + b"Content-Length: 9\r\n\r\nhello"], BROKEN),
        ([OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"], BROKEN),
        ([OK + b"Content-Length: many\r\n\r\n"], BROKEN),
        ([OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nhell"], BROKEN),
        ([b"SSH-2.0-nonsense\r\n"], BROKEN),
        ([b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"], BROKEN),
        ([OK + b"A: " + b"x" * (MAX_HEADER_BYTES + 10)], BROKEN),
        ([OK, *[b"A: b\r\n" * 1000] * (MAX_HEADER_BYTES // 6000 + 2)], BROKEN),
    ],
)
def test_answer__that_is_none_breaks_the_connection(pieces: list[bytes], cause: str) -> None:
    found, server = ask(saying_and_closing(*pieces), times=2)
    assert [kind(one) for one in found] == [("connection", cause)] * 2
    assert server.connections == 2


@pytest.mark.parametrize(
    "pieces",
    [
        [OK + b"Content-Length: 101\r\n\r\n"],
        [OK + b"Transfer-Encoding: chunked\r\n\r\n", *[b"32\r\n" + b"x" * 50 + b"\r\n"] * 3],
        [OK + b"\r\n", b"x" * 60, b"x" * 60],
    ],
)
def test_answer__of_too_many_bytes_is_given_up(pieces: list[bytes]) -> None:
    found, _ = ask(saying(*pieces), max_bytes=100)
    assert kind(found[0]) == ("unusable", "The model's answer has more than 100 bytes (9.53674e-05 MiB).")


def test_answer__of_just_the_most_bytes_is_taken() -> None:
    found, _ = ask(saying(OK + b"Content-Length: 100\r\n\r\n" + b"x" * 100), max_bytes=100)
    assert found == [Answer(200, b"x" * 100)]


def test_answer__that_comes_too_late_fails_and_the_next_request_has_a_new_connection() -> None:
    asked = 0

    async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        if asked != 2:
            writer.write(OK + b"Content-Length: 0\r\n\r\n")

    found, server = ask(talk, times=3, timeout_seconds=0.4)
    assert [isinstance(one, Answer) for one in found] == [True, False, True]
    assert kind(found[1]) == ("timeout", "no answer within 0.4 s")
    assert server.connections == 2


def test_connection__on_which_the_server_says_more_than_it_was_asked_is_not_used_again() -> None:
    found, server = ask(saying(OK + b"Content-Length: 2\r\n\r\nhi" + OK + b"Content-Length: 5\r\n\r\nagain"), times=3)
    assert found == [Answer(200, b"hi")] * 3
    assert server.connections == 4  # the first was asked again, and then each had a connection of its own


def test_answer__of_which_a_part_came_before_it_was_asked_for_is_not_the_next_one() -> None:
    asked = 0

    async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        first = OK + b'Content-Length: 3\r\n\r\n"a"' + OK + b'Content-Length: 3\r\n\r\n"'
        writer.write(first if asked == 1 else OK + b'Content-Length: 3\r\n\r\n"b"')

    found, server = ask(talk, times=2)
    assert found == [Answer(200, b'"b"'), Answer(200, b'"b"')]  # the first was asked again
    assert server.connections == 3


def test_connection__that_has_waited_long_is_not_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.clients.model_http.connections.IDLE_SECONDS", -1.0)
    found, server = ask(saying(OK + b"Content-Length: 2\r\n\r\nhi"), times=3)
    assert found == [Answer(200, b"hi")] * 3
    assert server.connections == 3


def test_health__of_a_server_that_fails_at_length_is_none() -> None:
    async def work(status: bytes) -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 2_000_000)
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await ask_health(f"http://127.0.0.1:{port}", "/health", DEADLINE_SECONDS)

    assert run(work(b"500 Wrong")) == "HTTP 500"
    assert run(work(b"200 OK")) == ""


def test_connection__that_the_server_closes_in_between_is_not_used_again() -> None:
    async def work() -> None:
        async with serving(saying_and_closing(OK + b"Content-Length: 2\r\n\r\nhi")) as server:
            client = ModelClient(server.url, "POST", "/", DEADLINE_SECONDS)
            for expected in range(1, 4):
                assert await client.predict(BODY) == Answer(200, b"hi")
                while client.connections.open:  # until its end is seen
                    await asyncio.sleep(0.001)
                assert server.connections == expected
            await client.close()

    run(work())


def test_answer__before_all_of_a_large_request_is_taken_counts_and_ends_the_connection() -> None:
    async def work() -> tuple[RequestFailed, int]:
        connections = 0

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal connections
            connections += 1
            await reader.read(10)
            writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 5\r\n\r\nlarge")
            await writer.drain()
            while await reader.read(1 << 16):  # or the kernel resets the connection
                pass
            writer.close()

        async with await asyncio.start_server(connected, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = ModelClient(f"http://127.0.0.1:{port}", "POST", "/", DEADLINE_SECONDS)
            with pytest.raises(RequestFailed) as failed:
                await client.predict(Body("a/b", (b"x" * (32 << 20),)))
            await client.close()
            return failed.value, connections

    failed, connections = run(work())
    assert failed.failure.status == 413
    assert failed.answer == Answer(413, b"large")
    assert connections == 1


def test_request__that_is_cancelled_leaves_no_connection() -> None:
    async def work() -> None:
        began, over = asyncio.Event(), asyncio.Event()

        async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
            began.set()
            await over.wait()

        async with serving(talk) as server:
            client = ModelClient(server.url, "POST", "/", DEADLINE_SECONDS)
            asking = asyncio.create_task(client.predict(BODY))
            await began.wait()
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            assert not client.connections.open
            assert not client.connections._idle
            over.set()
            await client.close()

    run(work())


def test_close__fails_what_is_under_way() -> None:
    async def work() -> None:
        began, over = asyncio.Event(), asyncio.Event()

        async def talk(body: bytes, writer: asyncio.StreamWriter) -> None:
            began.set()
            await over.wait()

        async with serving(talk) as server:
            client = ModelClient(server.url, "POST", "/", DEADLINE_SECONDS)
            asking = asyncio.create_task(client.predict(BODY))
            await began.wait()
            await client.close()
            with pytest.raises(RequestFailed) as failed:
                await asking
            assert kind(failed.value) == ("connection", CLOSED)
            over.set()

    run(work())
