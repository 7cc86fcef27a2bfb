"""One request to one model server: every way to fail has its kind. And the budget of bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from clients.support import run
from fakes.model_behaviour import item_key
from fakes.model_server import FakeModelServer
from fakes.processes import DEADLINE_SECONDS, closed_port

from tasks.clients.model_http.model_server import Answer, ModelClient, RequestFailed
from tasks.domain.request import Body, FileForm


@pytest.fixture(scope="module")
def model() -> Iterator[FakeModelServer]:
    with FakeModelServer("--count-items") as server:
        yield server


def predict(url: str, data: bytes, *, path: str = "/echo", timeout_seconds: float = DEADLINE_SECONDS) -> Answer:
    async def work() -> Answer:
        client = ModelClient(url, "POST", path, timeout_seconds)
        try:
            return await client.predict(Body("application/json", (data,)))
        finally:
            await client.close()

    return run(work())


def failure(url: str, data: bytes, **options: float) -> RequestFailed:
    with pytest.raises(RequestFailed) as raised:
        predict(url, data, **options)  # type: ignore[arg-type]
    return raised.value


def test_predict__gives_the_answer_byte_for_byte(model: FakeModelServer) -> None:
    data = bytes(range(256)) * 1000
    assert predict(model.url, data) == Answer(200, data)


def test_predict__sends_a_file_as_a_form(model: FakeModelServer) -> None:
    async def work() -> bytes:
        client = ModelClient(model.url, "POST", "/echo", DEADLINE_SECONDS)
        answer = await client.predict(FileForm("images").body('汉 "1".jpg', b"the image"))
        await client.close()
        return answer.data

    sent = run(work())
    assert 'name="images"; filename="汉 %221%22.jpg"\r\nContent-Type: image/jpeg\r\n\r\nthe image\r\n'.encode() in sent
    assert model.stats()["items"][item_key(b"the image")] == 1


@pytest.mark.parametrize("what", ["badjson", "empty", "20mb"])
def test_predict__takes_any_body_of_a_success(model: FakeModelServer, what: str) -> None:
    answer = predict(model.url, f"FAIL:{what}".encode())
    assert answer.status == 200
    assert len(answer.data) == {"badjson": 9, "empty": 0, "20mb": 20 << 20}[what]


@pytest.mark.parametrize("status", [400, 404, 413, 429, 500, 503])
def test_failure__of_a_status_has_status_and_answer(model: FakeModelServer, status: int) -> None:
    failed = failure(model.url, f"FAIL:{status}".encode())
    assert (failed.failure.kind, failed.failure.status) == ("status", status)
    assert failed.answer is not None
    assert failed.answer.data.startswith(b'{"error": ')
    assert failed.cause == f"HTTP {status}"


def test_failure__of_a_redirect_is_a_status(model: FakeModelServer) -> None:
    assert failure(model.url, b"FAIL:302").failure.status == 302


def test_failure__says_when_to_come_back(model: FakeModelServer) -> None:
    assert failure(model.url, b"FAIL:429:7:1 later").failure.retry_after_seconds == 7
    assert failure(model.url, b"FAIL:500").failure.retry_after_seconds is None


@pytest.mark.parametrize("what", ["close", "die"])
def test_failure__of_a_broken_connection(what: str) -> None:
    with FakeModelServer() as server:
        failed = failure(server.url, f"FAIL:{what}".encode())
    assert (failed.failure.kind, failed.failure.status, failed.answer) == ("connection", None, None)
    assert failed.cause == "the connection was closed without an answer"


def test_failure__of_a_refused_connection() -> None:
    with closed_port() as port:
        failed = failure(f"http://127.0.0.1:{port}", b"x")
    assert failed.failure.kind == "refused"
    assert failed.cause.startswith("no connection (")


def test_failure__of_a_silent_server(model: FakeModelServer) -> None:
    failed = failure(model.url, b"FAIL:hang", timeout_seconds=0.3)
    assert failed.failure.kind == "timeout"
    assert failed.cause == "no answer within 0.3 s"


def test_failure__of_something_that_is_not_http() -> None:
    async def work() -> RequestFailed:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"SSH-2.0-nonsense\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = ModelClient(f"http://127.0.0.1:{port}", "POST", "/", DEADLINE_SECONDS)
            with pytest.raises(RequestFailed) as raised:
                await client.predict(Body("a/b", (b"x",)))
            await client.close()
            return raised.value

    failed = run(work())
    assert failed.failure.kind == "connection"
    assert failed.cause == "the answer broke off or is not HTTP"


def test_failure__of_an_answer_that_breaks_off() -> None:
    async def work() -> RequestFailed:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            client = ModelClient(f"http://127.0.0.1:{port}", "POST", "/", DEADLINE_SECONDS)
            with pytest.raises(RequestFailed) as raised:
                await client.predict(Body("a/b", (b"x",)))
            await client.close()
            return raised.value

    assert run(work()).failure.kind == "connection"


def test_client__keeps_its_connections(model: FakeModelServer) -> None:
    before = model.stats()["connections"]

    async def work() -> None:
        client = ModelClient(model.url, "POST", "/", DEADLINE_SECONDS)
        for _ in range(20):
            await client.predict(Body("a/b", (b"x",)))
        await client.close()

    run(work())
    assert model.stats()["connections"] == before + 2  # the client's and the one that asks


def test_client__asks_at_the_path_below_the_address_and_by_the_given_method(model: FakeModelServer) -> None:
    async def work() -> None:
        client = ModelClient(f"{model.url}/", "PUT", "/v1/my-path", DEADLINE_SECONDS)
        with pytest.raises(RequestFailed) as raised:
            await client.predict(Body("a/b", (b"x",)))
        assert raised.value.failure.status == 404  # the fake answers POST only
        await client.close()

    run(work())
    assert model.stats()["requests"]["/v1/my-path"] == 1


# --- budget


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)
