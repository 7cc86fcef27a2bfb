"""Endpoints of object storages: nonsense is refused in plain words, before a library meets it."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from clients.support import run
from fakes.certificates import pem_files
from fakes.odd_s3_server import OddS3Server
from fakes.processes import closed_port

from tasks.clients.cluster.dask_security import made_identity
from tasks.clients.storage.failures import ObjectError
from tasks.clients.storage.object_store import Bucket
from tasks.clients.storage.s3_client import credentials_of
from tasks.clients.storage.storage import Storage
from tasks.domain.credentials import Credentials
from tasks.domain.paths import parse_address
from tasks.domain.settings import Settings

KEYS = {"access_key_id": "a" * 20, "secret_access_key": "b" * 40}


@pytest.mark.parametrize(
    "endpoint",
    ["https://not a url", "http://", "http://x:99999", "http://x:abc", "https://[::1", "ftp://x", "http://a/b c", "x",
     "http://x\ny", "http://x/?a=b", "http://x#a", "http://x:0", "http://\u4f60\u597d"],
)  # fmt: skip
def test_bucket__at_an_endpoint_that_is_no_address_is_refused(endpoint: str) -> None:
    with pytest.raises(ObjectError, match=r"should be http\(s\)://host\[:port\]"):
        Bucket("bucket", Credentials(endpoint_url=endpoint, **KEYS), 5)


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "https://obs.cn-north-4.example.com",
        "http://[::1]:9000",
        "HTTPS://S3.example.com/base/",
    ],
)
def test_bucket__takes_every_address(endpoint: str) -> None:
    run(Bucket("bucket", Credentials(endpoint_url=endpoint, **KEYS), 5).close())


OBS_ALONE = {"OBS_ACCESS_KEY_ID": "a" * 20, "OBS_SECRET_ACCESS_KEY": "b" * 40}


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_storage__with_keys_of_obs_alone_takes_s3_addresses_for_its_own(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with OddS3Server({"data": {"in/1.csv": b"1"}}) as server:
        for name, value in (OBS_ALONE | {"OBS_ENDPOINT_URL": server.endpoint}).items():
            monkeypatch.setenv(name, value)

        async def work() -> list[str]:
            storage = Storage(Settings())
            try:
                return [name async for name, _, _ in storage.list(parse_address(f"{scheme}://data/in"))]
            finally:
                await storage.close()

        assert run(work()) == ["1.csv"]


@pytest.mark.parametrize("scheme", ["s3", "obs"])
def test_storage__of_obs_without_endpoint_and_region_is_refused_in_one_line(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in OBS_ALONE.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ObjectError, match="set OBS_ENDPOINT_URL, or OBS_REGION to a region"):
        Storage(Settings()).bucket(parse_address(f"{scheme}://data/in"))
    monkeypatch.setenv("OBS_REGION", "cn-north-4")
    found = credentials_of(scheme, {})
    assert found.endpoint_url == "https://obs.cn-north-4.myhuaweicloud.com"


@contextmanager
def answering(status: int, body: str = "", tls: Path | None = None) -> Iterator[str]:
    """A storage that answers everything alike; its address without a scheme."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body.encode())

        do_GET = do_HEAD = answer

        def log_message(self, format: str, *arguments: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            files = pem_files(tls, made_identity())
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(files["certificate_file"], files["key_file"])
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def told(endpoint: str) -> str:
    credentials = Credentials(endpoint_url=endpoint, origin="AWS_ACCESS_KEY_ID", **KEYS)

    async def ask() -> str:
        bucket = Bucket("bucket", credentials, 5, retry_seconds=0.2)
        try:
            with pytest.raises(ObjectError) as refused:
                await bucket.size("key")
        finally:
            await bucket.close()
        return refused.value.cause

    return run(ask())


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "SignatureDoesNotMatch", "No permission (HTTP 403 Forbidden, SignatureDoesNotMatch) with the access key"),
        (403, "InvalidAccessKeyId", "No permission (HTTP 403 Forbidden, InvalidAccessKeyId) with the access key"),
        (400, "ExpiredToken", "The storage {} answers HTTP 400 Bad Request, ExpiredToken."),
        (503, "", "The storage {} answers HTTP 503 Service Unavailable."),
    ],
)
def test_storage__that_refuses_is_told_with_its_code_and_whose_key_it_was(status: int, code: str, said: str) -> None:
    with answering(status, f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>") as address:
        cause = told(f"http://{address}")
    assert cause.startswith(said.format(f"http://{address}"))
    assert (" aaaa... of AWS_ACCESS_KEY_ID." in cause) is (status == 403)
    assert "aaaaa" not in cause and "bbbb" not in cause


def test_storage__that_cannot_be_reached_is_told_with_its_address_and_the_cause(tmp_path: Path) -> None:
    with closed_port() as port:
        endpoint = f"http://127.0.0.1:{port}"
        assert told(endpoint) == f"The storage {endpoint} cannot be reached: connection refused."
    with answering(200) as address:
        assert told(f"https://{address}").startswith(
            f"The storage https://{address} cannot be reached: it does not speak TLS"
        )
    with answering(200, tls=tmp_path / "pem") as address:
        assert told(f"https://{address}").startswith(
            f"The storage https://{address} cannot be reached: its certificate is not trusted here"
        )


def test_storage__behind_a_proxy_that_is_away_is_told_with_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with closed_port() as port:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        said = told("http://storage.example")
    assert said.startswith(
        f"The storage http://storage.example through the proxy http_proxy=http://127.0.0.1:{port} cannot be"
    )


def test_storage__that_sends_requests_elsewhere_blames_region_and_endpoint() -> None:
    with answering(301) as address:
        assert told(f"http://{address}").endswith("the region or the endpoint is another one.")


def test_bucket__in_a_region_that_is_none_is_refused_before_a_library_panics() -> None:
    with pytest.raises(ObjectError, match="storage's region has a character that no request can carry"):
        Bucket("bucket", Credentials(region="a b", **KEYS), 5)


@pytest.mark.parametrize("body", ["<html><body>Please sign in</body></html>", "<!DOCTYPE html>\n<html></html>"])
def test_storage__in_whose_place_a_page_to_sign_in_answers_is_told_with_its_endpoint(body: str) -> None:
    with answering(200, body) as address:
        cause = told(f"http://{address}")
    assert cause.startswith(f"The storage http://{address} does not answer as S3 does")
