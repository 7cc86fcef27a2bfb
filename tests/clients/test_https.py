"""Headers of requests, the built-in server's own, and certificates."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

import pytest
from clients.support import run
from clients.talking import BODY, OK, kind, saying, serving
from fakes.processes import DEADLINE_SECONDS

from tasks.clients.model_http.model_server import Answer, ModelClient, RequestFailed
from tasks.domain.request import Body


def test_address__may_hold_a_user_and_be_ipv6() -> None:
    async def work() -> bytes:
        async with serving(saying(OK + b"Content-Length: 0\r\n\r\n"), host="::1") as server:
            client = ModelClient(server.url.replace("//", "//me:p%40ss@"), "PUT", "/a b/é", DEADLINE_SECONDS)
            await client.predict(BODY)
            await client.close()
            return server.heads[0]

    head = run(work())
    assert head.startswith(b"PUT /a%20b/%C3%A9 HTTP/1.1\r\nHost: [::1]:")
    assert b"\r\nAuthorization: Basic bWU6cEBzcw==\r\n" in head


def test_headers__that_are_given_take_the_place_of_usual_ones_on_every_request() -> None:
    given = {"accept": "application/json", "Host": "model.example", "X-Key": "caf\u00e9", "Authorization": "Bearer x"}

    async def work() -> list[bytes]:
        async with serving(saying(OK + b"Content-Length: 0\r\n\r\n")) as server:
            client = ModelClient(server.url.replace("//", "//me:pass@"), "POST", "/", DEADLINE_SECONDS, headers=given)
            for _ in range(2):
                await client.predict(BODY)
            await client.close()
            return server.heads

    heads = run(work())
    assert len(heads) == 2
    for head in heads:
        lines = head.split(b"\r\n")
        assert {b"accept: application/json", b"Host: model.example", b"Authorization: Bearer x"} <= {*lines}
        assert b"X-Key: caf\xe9" in lines
        names = [line.partition(b":")[0].lower() for line in lines[1:] if line]
        assert len({*names}) == len(names)


@pytest.mark.parametrize(
    ("explains", "status", "explained"), [(True, 500, True), (False, 500, False), (True, 502, False)]
)
def test_exception_of_the_package__is_believed_of_the_built_in_server_only(
    explains: bool, status: int, explained: bool
) -> None:
    async def work() -> RequestFailed:
        reply = b"HTTP/1.1 %d X\r\nX-Package-Exception: final\r\nContent-Length: 2\r\n\r\n{}" % status
        async with serving(saying(reply)) as server:
            client = ModelClient(server.url, "POST", "/", DEADLINE_SECONDS, explains=explains)
            with pytest.raises(RequestFailed) as raised:
                await client.predict(BODY)
            await client.close()
            return raised.value

    failed = run(work()).failure
    assert (failed.kind, failed.status, failed.explained) == ("status", status, explained)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("certificate")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder / "cert.pem", folder / "key.pem"


@pytest.mark.parametrize("trusted", [True, False])
def test_https__asks_only_a_server_whose_certificate_is_trusted(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)

    async def work() -> Answer | RequestFailed:
        async with serving(saying(OK + b"Content-Length: 2\r\n\r\nhi"), context=context) as server:
            client = ModelClient(server.url, "POST", "/", DEADLINE_SECONDS)
            try:
                await client.predict(BODY)
                return await client.predict(Body("a/b", (b"x" * (1 << 20), b"y")))
            except RequestFailed as failed:
                return failed
            finally:
                await client.close()

    found = run(work())
    if trusted:
        assert found == Answer(200, b"hi")
    else:
        assert kind(found)[0] == "refused"
        assert "certificate" in kind(found)[1]
